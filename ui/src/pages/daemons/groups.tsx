// The fleet by what daemons have in common: how many there are of each kind, and how those are.

import type { Presence } from "@/api/types";
import { Button } from "@/components/button";
import { Select } from "@/components/field";
import { PRESENCE_TONES, Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { bytes, number } from "@/lib/format";
import type { Group } from "./grouping";

interface GroupByProps {
  keys: readonly string[];
  value: string;
  onChange: (value: string) => void;
}

export const GroupBy = ({ keys, value, onChange }: GroupByProps) => (
  <div>
    <Select aria-label="Group by" value={value} onChange={(event) => onChange(event.target.value)}>
      <option value="">Each by itself</option>
      {keys.map((key) => (
        <option key={key} value={key}>{`By ${key}`}</option>
      ))}
    </Select>
  </div>
);

interface GroupsProps {
  groups: readonly Group[];
  by: string;
  /** Shows the daemons of a group: by a term of the filter. */
  onChoose: (term: string) => void;
}

export function Groups({ groups, by, onChoose }: GroupsProps) {
  const columns: readonly Column<Group>[] = [
    {
      name: `${by[0]?.toUpperCase()}${by.slice(1)}`,
      cell: ({ value, term }) => (
        <Button kind="quiet" className="h-7 text-accent!" title={term} onClick={() => onChoose(term)}>
          {value ?? `no ${by}`}
        </Button>
      ),
    },
    { name: "Daemons", isNumber: true, cell: ({ daemons }) => number(daemons) },
    {
      name: "Presence",
      cell: ({ presences }) => (
        <span className="flex flex-wrap gap-x-3">
          {Object.entries(presences).map(([presence, found]) => (
            <Status key={presence} tone={PRESENCE_TONES[presence as Presence]}>{`${number(found)} ${presence}`}</Status>
          ))}
        </span>
      ),
    },
    {
      name: "Trouble",
      cell: ({ troubled }) =>
        troubled > 0 ? (
          <Status tone="bad">{`${number(troubled)} in trouble`}</Status>
        ) : (
          <span className="text-muted">none</span>
        ),
    },
    { name: "Buffered", isNumber: true, cell: ({ bufferedBytes }) => bytes(bufferedBytes) },
  ];
  return <Table label="Groups" columns={columns} rows={groups} rowKey={({ term }) => term} />;
}
