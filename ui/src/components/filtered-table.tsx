// A list with its filter: the rows that fit, or that none does and how to see all again.

import { type ReactNode, useMemo } from "react";
import { Button } from "./button";
import { ListFilter } from "./list-filter";
import { Empty } from "./page";
import { type Column, Table } from "./table";

interface FilteredTableProps<Item, Row> {
  /** What is listed, one of it: "alert". */
  noun: string;
  /** The table's name: "Alerts". */
  label: string;
  placeholder: string;
  all: readonly Item[];
  /** What is typed, which the address keeps. */
  typed: string;
  onType: (typed: string) => void;
  /** The rows that fit, in order. Always the same function, or what it depends on is in it. */
  choose: (all: readonly Item[], typed: string) => readonly Row[];
  columns: readonly Column<Row>[];
  rowKey: (row: Row) => string;
  /** Whatever else chooses, and how to end that. */
  children?: ReactNode;
  onClear?: () => void;
}

export function FilteredTable<Item, Row>(props: FilteredTableProps<Item, Row>) {
  const { noun, label, placeholder, all, typed, onType, choose, columns, rowKey, children, onClear } = props;
  const rows = useMemo(() => choose(all, typed), [choose, all, typed]);
  const clear = () => {
    onType("");
    onClear?.();
  };
  return (
    <>
      <ListFilter
        noun={noun}
        placeholder={placeholder}
        typed={typed}
        onType={onType}
        found={rows.length}
        all={all.length}
      >
        {children}
      </ListFilter>
      {rows.length === 0 ? (
        <Empty title={`No ${noun} fits the filter`} action={<Button onClick={clear}>Clear the filter</Button>} />
      ) : (
        <Table label={label} columns={columns} rows={rows} rowKey={rowKey} />
      )}
    </>
  );
}
