// Copying: a button beside a text, and "the same on the command line".

import { Check, Copy, Terminal } from "lucide-react";
import { useEffect, useState } from "react";
import { Button, IconButton } from "./button";
import { tell } from "./toast";

const SHOWN_MS = 2_000;

/** Copies, also where the page has no right to the clipboard (plain HTTP under another name). */
async function copy(text: string) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.className = "sr-only";
    document.body.append(field);
    field.select();
    // The only way without the Clipboard API; browsers keep it for that reason.
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}

function useCopied() {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = setTimeout(() => setCopied(false), SHOWN_MS);
    return () => clearTimeout(timer);
  }, [copied]);
  const run = async (text: string, what: string) => {
    const done = await copy(text);
    setCopied(done);
    tell(done ? `Copied ${what}.` : "This browser does not let the page copy; select the text instead.");
  };
  return { copied, run };
}

/** `what` is what is copied: "the command". */
export function CopyButton({ text, what }: { text: string; what: string }) {
  const { copied, run } = useCopied();
  return (
    <IconButton label={`Copy ${what}`} onClick={() => void run(text, what)}>
      {copied ? <Check aria-hidden="true" className="text-good" /> : <Copy aria-hidden="true" />}
    </IconButton>
  );
}

/** Copies the command that does the same as what stands beside it. */
export function CliButton({ command }: { command: string }) {
  const { copied, run } = useCopied();
  return (
    <Button
      kind="quiet"
      title={command}
      onClick={() => void run(command, command.includes("\n") ? "the command" : `“${command}”`)}
    >
      {copied ? <Check aria-hidden="true" className="text-good" /> : <Terminal aria-hidden="true" />}
      Copy as CLI
    </Button>
  );
}

/** A command or text to take away. */
export function Code({ text, what }: { text: string; what: string }) {
  return (
    <div className="flex items-start gap-1 rounded-(--radius) border border-line bg-sunken py-1 pr-1 pl-3">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it scrolls, so the keyboard has to reach it */}
      <pre tabIndex={0} className="min-w-0 flex-1 overflow-x-auto py-1.5 font-mono text-xs leading-5">
        {text}
      </pre>
      <CopyButton text={text} what={what} />
    </div>
  );
}

/** A word for a shell: quoted where it has to be. */
export const shellWord = (text: string) =>
  /^[\w@%+=:,./*-]+$/.test(text) && !text.includes("*") ? text : `'${text.replaceAll("'", "'\\''")}'`;
