// Records that pass a node, for a while: opened by somebody, seen to be open, and over by itself. When this page is left, it
// ends.

import { useMutation } from "@tanstack/react-query";
import { Eye } from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { Failed } from "@/api/client";
import { endTap, lookTap, openTap } from "@/api/operator";
import type { TapShown } from "@/api/types";
import { Allowed } from "@/components/allowed";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Field, Select } from "@/components/field";
import { Section } from "@/components/page";
import { Records, type Shown } from "@/components/records";
import { number, sentence } from "@/lib/format";

/** How often it is looked at: no more than once a second. */
const LOOK_MS = 1_000;
/** Newest records that are shown. */
const SHOWN_MAX = 50;
/** Most records a second that are asked for. */
const RATE = 10;
const LENGTHS = [
  [30, "30 seconds"],
  [60, "1 minute"],
  [300, "5 minutes"],
  [600, "10 minutes"],
] as const;

export interface Tapped {
  tap: TapShown;
  /** The newest first, with their numbers. */
  records: readonly { number: number; record: Shown }[];
  skipped: number;
}

/** How long after its end by this clock a tap of which nothing is heard is taken to be over. */
const GRACE_MS = 5_000;

/** Why a tap that cannot be looked at is over; null: it may go on. */
function whyOver(cause: unknown, lateMs: number) {
  if (cause instanceof Failed && cause.status === 404) return "the plane does not know this tap any more";
  return lateMs > GRACE_MS ? "its time is over, and the plane did not say how it ended" : null;
}

const over = (tapped: Tapped, cause: string): Tapped => ({
  ...tapped,
  tap: { ...tapped.tap, is_over: true, left_s: 0, cause: tapped.tap.cause || cause },
});

/** The one tap of this page. */
export function useTap() {
  const [tapped, setTapped] = useState<Tapped | null>(null);
  const [error, setError] = useState<unknown>(null);
  const id = tapped?.tap.id ?? null;
  const isOver = tapped?.tap.is_over ?? true;
  const newest = useRef(0);
  /** When it ends, by this clock. */
  const endsAt = useRef(0);
  useEffect(() => {
    if (id === null || isOver) return;
    let isLeft = false;
    let timer: ReturnType<typeof setTimeout>;
    const look = async () => {
      try {
        const found = await lookTap(id, newest.current);
        if (isLeft) return;
        newest.current = found.newest;
        setTapped((before) => ({
          tap: found.tap,
          records: [...found.records.toReversed(), ...(before?.records ?? [])].slice(0, SHOWN_MAX),
          skipped: found.skipped,
        }));
        setError(null);
      } catch (cause) {
        if (isLeft) return;
        const why = whyOver(cause, Date.now() - endsAt.current);
        setError(why === null ? cause : null);
        if (why !== null) return setTapped((before) => before && over(before, why));
      }
      if (!isLeft) timer = setTimeout(() => void look(), LOOK_MS);
    };
    timer = setTimeout(() => void look(), LOOK_MS / 2);
    return () => {
      isLeft = true;
      clearTimeout(timer);
    };
  }, [id, isOver]);
  // Nobody looks any more: it need not wait for its own end.
  const open = useRef<number | null>(null);
  open.current = isOver ? null : id;
  useEffect(
    () => () => {
      if (open.current !== null) void endTap(open.current).catch(() => {});
    },
    [],
  );
  return {
    tapped,
    error,
    begin: (tap: TapShown) => {
      newest.current = 0;
      endsAt.current = Date.now() + tap.left_s * 1_000;
      setError(null);
      setTapped({ tap, records: [], skipped: 0 });
    },
    end: async () => {
      if (id !== null) await endTap(id).catch(setError);
      setTapped((before) => before && over(before, ""));
    },
    close: () => setTapped(null),
  };
}

export type Tap = ReturnType<typeof useTap>;

interface OpenTapProps {
  tap: Tap;
  workflow: string;
  node: string;
  daemons: readonly string[];
}

/** Asks for how long, and where when there are several places. */
export function OpenTap({ tap, workflow, node, daemons }: OpenTapProps) {
  const [lasts, setLasts] = useState<number>(60);
  const [chosen, setChosen] = useState(daemons[0] ?? "");
  const daemon = daemons.includes(chosen) ? chosen : (daemons[0] ?? "");
  const run = useMutation({
    mutationFn: () => openTap({ daemon, workflow, node, for_s: lasts, rate: RATE }),
    onSuccess: tap.begin,
  });
  if (daemon === "") return null;
  const isOpen = tap.tapped !== null && !tap.tapped.tap.is_over;
  return (
    <Allowed needs="operator" what="Watching records">
      <div className="flex flex-wrap items-end gap-2">
        {daemons.length > 1 && (
          <Field label="On" className="w-36">
            <Select value={daemon} onChange={(event) => setChosen(event.target.value)}>
              {daemons.map((name) => (
                <option key={name}>{name}</option>
              ))}
            </Select>
          </Field>
        )}
        <Field label="Watch records for" className="w-36">
          <Select value={lasts} onChange={(event) => setLasts(Number(event.target.value))}>
            {LENGTHS.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </Select>
        </Field>
        <Button disabled={isOpen} busy={run.isPending} onClick={() => run.mutate()}>
          <Eye aria-hidden="true" />
          Watch
        </Button>
      </div>
      <div>
        <CliButton
          command={`mycelial tap ${shellWord(workflow)} ${shellWord(node)} --daemon ${shellWord(daemon)} --rate ${RATE} --seconds ${lasts}`}
        />
      </div>
      {run.isError && <Failure error={run.error} />}
    </Allowed>
  );
}

/** Says that records are being looked at, for as long as they are. */
export function TapBadge({ tap: { tapped, end } }: { tap: Tap }) {
  if (!tapped || tapped.tap.is_over) return null;
  const { node, daemon, left_s } = tapped.tap;
  return (
    <span className="inline-flex items-center gap-2 rounded-full border border-warn bg-warn-soft py-0.5 pr-0.5 pl-3 text-sm text-warn">
      <Eye className="size-4 shrink-0" aria-hidden="true" />
      <span>
        Records of {node} on {daemon} are shown for <span className="tabular">{number(left_s)}</span> s more
      </span>
      <Button className="h-6 rounded-full" onClick={() => void end()}>
        End
      </Button>
    </span>
  );
}

export function TapRecords({ tap: { tapped, error, close } }: { tap: Tap }) {
  if (!tapped) return null;
  const { tap, records, skipped } = tapped;
  return (
    <Section
      title={`Records of ${tap.node}`}
      aside={`the newest ${SHOWN_MAX} that were shown${skipped > 0 ? `; ${number(skipped)} passed unseen` : ""}`}
      actions={tap.is_over && <Button onClick={close}>Close</Button>}
    >
      {error !== null && <Failure error={error} />}
      {tap.cause !== "" && <Callout tone="info" title={sentence(tap.cause)} />}
      {records.length > 0 ? (
        <Records label={`Records of ${tap.node}`} records={records.map(({ record }) => record)} />
      ) : (
        <p className="text-sm text-muted">{tap.is_over ? "None passed." : "Waiting for some to pass …"}</p>
      )}
    </Section>
  );
}
