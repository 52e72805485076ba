// Dialogs, and the question before what cannot be undone. Radix keeps the focus inside and gives it back.

import { X } from "lucide-react";
import { Dialog as Radix } from "radix-ui";
import { type ReactNode, useRef, useState } from "react";
import { Button, IconButton } from "./button";
import { Failure } from "./callout";
import { CliButton } from "./copy";

/** Radix gives the focus back to a trigger of its own; these dialogs are opened by whatever had it. */
export function useFocusBack() {
  const before = useRef<Element | null>(null);
  return {
    onOpenAutoFocus: () => {
      before.current = document.activeElement;
    },
    onCloseAutoFocus: (event: Event) => {
      event.preventDefault();
      if (before.current instanceof HTMLElement) before.current.focus();
    },
  };
}

interface DialogProps {
  title: string;
  isOpen: boolean;
  onClose: () => void;
  children: ReactNode;
}

export function Dialog({ title, isOpen, onClose, children }: DialogProps) {
  const focus = useFocusBack();
  return (
    <Radix.Root open={isOpen} onOpenChange={(open) => !open && onClose()}>
      <Radix.Portal>
        <Radix.Overlay className="fixed inset-0 z-40 bg-black/50" />
        <Radix.Content
          {...focus}
          aria-describedby={undefined}
          className="fixed top-1/2 left-1/2 z-50 flex max-h-[calc(100vh-3rem)] w-[min(34rem,calc(100vw-2rem))] -translate-x-1/2 -translate-y-1/2 flex-col gap-4 overflow-y-auto rounded-(--radius-lg) border border-line bg-raised p-5 shadow-raised"
        >
          <div className="flex items-start gap-3">
            <Radix.Title className="min-w-0 flex-1 text-lg font-semibold break-words">{title}</Radix.Title>
            <Radix.Close asChild>
              <IconButton label="Close">
                <X aria-hidden="true" />
              </IconButton>
            </Radix.Close>
          </div>
          {children}
        </Radix.Content>
      </Radix.Portal>
    </Radix.Root>
  );
}

interface ConfirmProps {
  /** The button that asks: "Delete". */
  action: string;
  /** Its name where there are several of them: "Delete orders". */
  label?: string;
  /** The whole question, with the name of what is affected: "Delete orders?" */
  title: string;
  /** What happens, and what does not. */
  children: ReactNode;
  onConfirm: () => Promise<void>;
  /** It is asked about now. */
  onOpen?: () => void;
  /** The command that does the same. */
  command?: string;
}

/** A button for what cannot be undone: it asks first, naming what is affected. */
export function ConfirmButton({ action, label, title, children, onConfirm, onOpen, command }: ConfirmProps) {
  const [isOpen, setOpen] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const open = () => {
    onOpen?.();
    setOpen(true);
  };
  const run = async () => {
    setBusy(true);
    setError(null);
    try {
      await onConfirm();
      setOpen(false);
    } catch (cause) {
      setError(cause);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <Button kind="danger" aria-label={label} onClick={open}>
        {action}
      </Button>
      <Dialog title={title} isOpen={isOpen} onClose={() => setOpen(false)}>
        <div className="text-sm">{children}</div>
        {error !== null && <Failure error={error} />}
        <div className="flex flex-wrap justify-end gap-2">
          {command && (
            <span className="mr-auto">
              <CliButton command={command} />
            </span>
          )}
          <Button onClick={() => setOpen(false)}>Cancel</Button>
          <Button kind="danger" busy={isBusy} onClick={() => void run()}>
            {action}
          </Button>
        </div>
      </Dialog>
    </>
  );
}
