// Short news: what came of an action. Said to screen readers too; never the only place of an error.

import { X } from "lucide-react";
import { useEffect } from "react";
import { create } from "zustand";
import { IconButton } from "./button";

const SHOWN_MS = 5_000;
const TOASTS_MAX = 3;

interface Toast {
  id: number;
  text: string;
}

let last = 0;
const useToasts = create<{ toasts: Toast[] }>(() => ({ toasts: [] }));
const dismiss = (id: number) =>
  useToasts.setState(({ toasts }) => ({ toasts: toasts.filter((toast) => toast.id !== id) }));

export function tell(text: string) {
  last += 1;
  const toast = { id: last, text };
  useToasts.setState(({ toasts }) => ({ toasts: [...toasts, toast].slice(-TOASTS_MAX) }));
}

function Item({ toast }: { toast: Toast }) {
  useEffect(() => {
    const timer = setTimeout(() => dismiss(toast.id), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [toast.id]);
  return (
    <div className="flex items-center gap-3 rounded-(--radius) border border-line bg-raised py-1 pr-1 pl-3 text-sm shadow-raised">
      <span className="min-w-0 flex-1 break-words">{toast.text}</span>
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
