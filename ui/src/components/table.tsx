// Tables of some dozens of rows. On a phone a row becomes a small list: what needs no name comes first, in one line; then each
// value beside its column's name, numbers in pairs. Thousands of rows are VirtualTable's.

import { type ReactNode, useEffect, useRef, useState } from "react";
import { cx } from "@/lib/cx";

export interface Column<Row> {
  name: string;
  cell: (row: Row) => ReactNode;
  /** Numbers stand right-aligned, digit below digit. */
  isNumber?: boolean;
  /** Left out on a phone. */
  isMinor?: boolean;
  /** On a phone it says by itself what it is: it stands without its name, beside others of the kind. */
  isPlain?: boolean;
  className?: string;
}

/** Whether the box is too narrow for what is in it. */
function useScrolling() {
  const box = useRef<HTMLDivElement>(null);
  const [isScrolling, setScrolling] = useState(false);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const measure = () => setScrolling(element.scrollWidth > element.clientWidth);
    const size = new ResizeObserver(measure);
    size.observe(element);
    for (const child of element.children) size.observe(child);
    return () => size.disconnect();
  }, []);
  return { box, isScrolling };
}

/** On a phone what needs no name comes first, and the rest begins a line. */
export const ROW =
  "border-b border-line last:border-b-0 hover:bg-hover max-md:flex max-md:flex-wrap max-md:items-baseline max-md:gap-x-3 max-md:px-3 max-md:py-2 max-md:before:order-1 max-md:before:basis-full max-md:before:content-['']";

interface TableProps<Row> {
  /** What the table is, for screen readers. */
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => string;
}

export function Table<Row>({ label, columns, rows, rowKey }: TableProps<Row>) {
  const { box, isScrolling } = useScrolling();
  return (
    <div
      ref={box}
      // What scrolls has to be reached by the keyboard; what does not is no stop on its way.
      tabIndex={isScrolling ? 0 : undefined}
      className="overflow-x-auto rounded-(--radius-lg) border border-line bg-surface"
    >
      <table className="w-full border-collapse text-sm max-md:block">
        <caption className="sr-only">{label}</caption>
        <thead className="max-md:sr-only">
          <tr>
            {columns.map((column) => (
              <th
                key={column.name}
                scope="col"
                className={cx(
                  "border-b border-line bg-sunken px-3 py-1.5 text-xs font-medium whitespace-nowrap text-muted",
                  column.isNumber ? "text-right" : "text-left",
                )}
              >
                {column.name}
              </th>
            ))}
          </tr>
        </thead>
        <tbody className="max-md:block">
          {rows.map((row) => (
            <tr key={rowKey(row)} className={ROW}>
              <RowCells columns={columns} row={row} />
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A row's cells. On a phone each says which column it is. */
export function RowCells<Row>({ columns, row }: { columns: readonly Column<Row>[]; row: Row }) {
  return columns.map((column) => (
    <td
      key={column.name}
      className={cx(
        "px-3 py-1.5 break-words max-md:flex max-md:gap-2 max-md:px-0 max-md:py-0.5 max-md:has-[>div:empty]:hidden max-md:has-[.is-none]:hidden",
        column.isNumber && "tabular max-md:[overflow-wrap:normal] md:text-right",
        column.isMinor && "max-md:hidden!",
        !column.isPlain &&
          (column.isNumber ? "max-md:order-2 max-md:w-[calc(50%-0.375rem)]" : "max-md:order-2 max-md:w-full"),
        column.className,
      )}
    >
      {!column.isPlain && (
        <span aria-hidden="true" className="w-[5.5rem] shrink-0 text-muted md:hidden">
          {column.name}
        </span>
      )}
      <div className="min-w-0 max-md:flex-1 [&>.is-quiet:first-child]:-ml-[13px]">{column.cell(row)}</div>
    </td>
  ));
}
