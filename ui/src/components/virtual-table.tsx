// A table of thousands of rows: only those in sight are drawn. Columns can be sorted by; order and choice are the page's.

import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { ArrowDown, ArrowUp } from "lucide-react";
import { useLayoutEffect, useRef, useState } from "react";
import { cx } from "@/lib/cx";
import { type Column, ROW, RowCells } from "./table";

export interface Sort {
  key: string;
  isDescending: boolean;
}

/** `name`, or `-name` for descending: how a sort stands in an address. */
export const parseSort = (text: string): Sort => ({
  key: text.replace(/^-/, ""),
  isDescending: text.startsWith("-"),
});
const showSort = (sort: Sort) => `${sort.isDescending ? "-" : ""}${sort.key}`;

export interface SortableColumn<Row> extends Column<Row> {
  sortKey?: string;
}

interface VirtualTableProps<Row> {
  label: string;
  columns: readonly SortableColumn<Row>[];
  rows: readonly Row[];
  rowKey: (row: Row) => string;
  /** Missing: nobody can sort it. */
  sort?: Sort;
  onSort?: (sort: string) => void;
}

const UNSORTED: Sort = { key: "", isDescending: false };
const ignore = () => {};
const ROW_PX = 33;
const OVERSCAN = 12;

export function VirtualTable<Row>(props: VirtualTableProps<Row>) {
  const { label, columns, rows, rowKey, sort = UNSORTED, onSort = ignore } = props;
  const body = useRef<HTMLTableSectionElement>(null);
  const [offset, setOffset] = useState(0);
  useLayoutEffect(() => {
    setOffset((body.current?.getBoundingClientRect().top ?? 0) + window.scrollY);
  }, []);
  const virtual = useWindowVirtualizer({
    count: rows.length,
    estimateSize: () => ROW_PX,
    overscan: OVERSCAN,
    scrollMargin: offset,
    getItemKey: (index) => {
      const row = rows[index];
      return row === undefined ? index : rowKey(row);
    },
  });
  const items = virtual.getVirtualItems();
  const above = (items[0]?.start ?? offset) - offset;
  const below = virtual.getTotalSize() - ((items.at(-1)?.end ?? offset) - offset);
  return (
    <div className="rounded-(--radius-lg) border border-line bg-surface max-lg:overflow-x-auto">
      <table aria-rowcount={rows.length + 1} className="w-full border-collapse text-sm max-md:block">
        <caption className="sr-only">{label}</caption>
        <thead className="max-md:sr-only">
          <tr aria-rowindex={1}>
            {columns.map((column) => (
              <Head key={column.name} column={column} sort={sort} onSort={onSort} />
            ))}
          </tr>
        </thead>
        <tbody ref={body} className="max-md:block">
          {above > 0 && <tr style={{ height: above }} className="max-md:block" />}
          {items.map((item) => {
            const row = rows[item.index];
            if (row === undefined) return null;
            return (
              <tr
                key={item.key}
                ref={virtual.measureElement}
                data-index={item.index}
                aria-rowindex={item.index + 2}
                className={ROW}
              >
                <RowCells columns={columns} row={row} />
              </tr>
            );
          })}
          {below > 0 && <tr style={{ height: below }} className="max-md:block" />}
        </tbody>
      </table>
    </div>
  );
}

interface HeadProps<Row> {
  column: SortableColumn<Row>;
  sort: Sort;
  onSort: (sort: string) => void;
}

function Head<Row>({ column, sort, onSort }: HeadProps<Row>) {
  const isSorted = column.sortKey !== undefined && column.sortKey === sort.key;
  const Arrow = sort.isDescending ? ArrowDown : ArrowUp;
  const looks = "text-xs font-medium whitespace-nowrap text-muted";
  return (
    <th
      scope="col"
      aria-sort={isSorted ? (sort.isDescending ? "descending" : "ascending") : undefined}
      className={cx(
        "border-b border-line bg-sunken px-1.5 py-0.5 md:sticky md:top-0 md:z-10",
        column.isNumber ? "text-right" : "text-left",
      )}
    >
      {column.sortKey === undefined ? (
        <span className={cx("px-1.5", looks)}>{column.name}</span>
      ) : (
        <button
          type="button"
          className={cx("inline-flex h-7 items-center gap-1 rounded-(--radius-sm) px-1.5 hover:text-text", looks)}
          onClick={() =>
            onSort(showSort({ key: column.sortKey ?? "", isDescending: isSorted ? !sort.isDescending : false }))
          }
        >
          {column.name}
          {isSorted && <Arrow className="size-3" aria-hidden="true" />}
        </button>
      )}
    </th>
  );
}
