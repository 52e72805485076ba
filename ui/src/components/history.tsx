// What the plane has kept of a daemon or a workflow, as lines over a time that somebody chooses.

import { useMemo } from "react";
import { Failed } from "@/api/client";
import { useSeries } from "@/api/queries";
import { useSeesAll } from "@/api/session";
import { Failure } from "@/components/callout";
import { alongSteps, SPANS, spanOf } from "@/lib/series";
import { Chart } from "./chart";
import { Select } from "./field";
import { Loading, Panel } from "./page";

export interface Metric {
  title: string;
  /** As the plane calls it. */
  metric: string;
  format: (value: number) => string;
  /** What its values are multiplied by. */
  scale?: number;
}

interface RangeProps {
  value: string;
  onChange: (value: string) => void;
  /** What is shown when no time is chosen. */
  first: string;
}

export function Range({ value, onChange, first }: RangeProps) {
  return (
    <Select aria-label="Time shown" value={value} onChange={(event) => onChange(event.target.value)}>
      <option value="">{first}</option>
      {SPANS.map(([key, text]) => (
        <option key={key} value={key}>
          {text}
        </option>
      ))}
    </Select>
  );
}

interface HistoryProps {
  subject: string;
  /** One of `SPANS`. */
  last: string;
  metrics: readonly Metric[];
}

export function History({ subject, last, metrics }: HistoryProps) {
  return (
    <Panel className="flex flex-wrap gap-x-8 gap-y-4 px-4 py-3">
      {metrics.map((metric) => (
        <Line key={metric.metric} subject={subject} lastS={spanOf(last)} metric={metric} />
      ))}
    </Panel>
  );
}

function Line({ subject, lastS, metric }: { subject: string; lastS: number; metric: Metric }) {
  const { title, metric: name, format, scale = 1 } = metric;
  const series = useSeries(subject, name, lastS);
  const seesAll = useSeesAll();
  const points = useMemo(() => (series.data ? alongSteps(series.data, scale) : []), [series.data, scale]);
  if (series.error instanceof Failed && series.error.status === 404) {
    return (
      <p className="text-sm text-muted">
        {title}: nothing is kept yet; history begins after ten seconds.
        {!seesAll && " That of a workflow is for those who see all of its daemons."}
      </p>
    );
  }
  if (series.isError) return <Failure error={series.error} onRetry={() => void series.refetch()} />;
  if (!series.data) return <Loading />;
  return <Chart title={title} points={points} format={format} />;
}
