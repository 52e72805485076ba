// On which daemon a text is tried: one that it names, or any other that is there.

import { useState } from "react";
import { Field, Select } from "@/components/field";
import type { Workbench } from "./state";

/** The daemon that is chosen, beginning with the first that the text names. */
export function useTrialDaemon({ graph, daemons }: Workbench) {
  const named = graph.nodes.map(({ daemon }) => daemon).find((daemon) => daemons.includes(daemon));
  const [chosen, setChosen] = useState<string | null>(null);
  return [chosen ?? named ?? daemons[0] ?? "", setChosen] as const;
}

interface TrialDaemonProps {
  bench: Workbench;
  daemon: string;
  onChange: (daemon: string) => void;
}

export const TrialDaemon = ({ bench, daemon, onChange }: TrialDaemonProps) => (
  <Field label="On the daemon" className="w-56">
    <Select value={daemon} onChange={(event) => onChange(event.target.value)}>
      {bench.daemons.map((name) => (
        <option key={name}>{name}</option>
      ))}
    </Select>
  </Field>
);
