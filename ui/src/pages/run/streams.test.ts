import { expect, it } from "vitest";
import type { StreamView } from "@/api/types";
import { edgeState, streamsOf } from "./streams";

const ledger = {
  produced: 9,
  buffered: 2,
  delivered: 7,
  dropped: 0,
  dead: 0,
  duplicates: 0,
  unconfirmed: 0,
  filtered: 0,
};
const stream: StreamView = {
  workflow: "shop",
  edge: "db->out",
  producer: "gateway",
  consumer: "hub",
  epoch: 1,
  ledger,
  balances: true,
  buffered_bytes: 100,
  rate: 5,
  trouble: "",
};

it("both streams of an edge are its account", () => {
  const all = [
    stream,
    { ...stream, edge: "db->out#2" },
    { ...stream, edge: "db->other" },
    { ...stream, workflow: "x" },
  ];
  const found = streamsOf(all, "shop", "db->out");
  expect(found).toHaveLength(2);
  expect(edgeState(found)).toEqual({ tone: "good", trouble: "", rate: 10, buffered: 4, bufferedBytes: 200 });
});

it.each([
  [{ trouble: "no credit" }, "bad", "no credit"],
  [{ ledger: { ...ledger, dead: 3 } }, "warn", "3 dropped or dead"],
])("%j", (change, tone, trouble) => expect(edgeState([{ ...stream, ...change }])).toMatchObject({ tone, trouble }));
