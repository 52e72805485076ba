// Short news: what came of an action. Said to screen readers too; never the only place of an error.

import { X } from "lucide-react";
import { useEffect } from "react";
import { create } from "zustand";
import { Button, IconButton } from "./button";

const SHOWN_MS = 5_000;
/** What can be undone has to be read, thought about and reached. */
const UNDO_MS = 20_000;
const TOASTS_MAX = 3;

/** What can be done about it: "Undo". */
interface Action {
  label: string;
  run: () => void;
}

interface Toast {
  id: number;
  text: string;
  action: Action | undefined;
}

let last = 0;
const useToasts = create<{ toasts: Toast[] }>(() => ({ toasts: [] }));
const dismiss = (id: number) =>
  useToasts.setState(({ toasts }) => ({ toasts: toasts.filter((toast) => toast.id !== id) }));

export function tell(text: string, action?: Action) {
  last += 1;
  const toast = { id: last, text, action };
  useToasts.setState(({ toasts }) => ({ toasts: [...toasts, toast].slice(-TOASTS_MAX) }));
}

function Item({ toast }: { toast: Toast }) {
  useEffect(() => {
    const timer = setTimeout(() => dismiss(toast.id), toast.action ? UNDO_MS : SHOWN_MS);
    return () => clearTimeout(timer);
  }, [toast.id, toast.action]);
  return (
    <div className="flex items-center gap-3 rounded-(--radius) border border-line bg-raised py-1 pr-1 pl-3 text-sm shadow-raised">
      <span className="min-w-0 flex-1 break-words">{toast.text}</span>
      {toast.action && (
        <Button
          kind="quiet"
          className="h-7 text-accent!"
          onClick={() => {
            toast.action?.run();
            dismiss(toast.id);
          }}
        >
          {toast.action.label}
        </Button>
      )}
      <IconButton label="Dismiss" onClick={() => dismiss(toast.id)}>
        <X aria-hidden="true" />
      </IconButton>
    </div>
  );
}

export function Toasts() {
  const toasts = useToasts((state) => state.toasts);
  return (
    <div role="status" className="fixed right-4 bottom-4 z-50 flex w-[min(26rem,calc(100vw-2rem))] flex-col gap-2">
      {toasts.map((toast) => (
        <Item key={toast.id} toast={toast} />
      ))}
    </div>
  );
}
