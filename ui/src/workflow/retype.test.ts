import { expect, it } from "vitest";
import { patchAll } from "./edit";
import { retype } from "./retype";
import { read } from "./value";

const TEXT = `name = "shop"

[destinations.store]
type = "postgres"
daemon = "hub"
from = "orders"
host = "db"  # the old one
table = "orders"
spool = { quota = "1GiB" }

[destinations.store.tls]
mode = "disable"
`;

it("keeps what both components know, drops the rest, and fills in what the new one's example has", () => {
  const keys = (read(TEXT).table as { destinations: { store: Record<string, string> } }).destinations.store;
  const edits = retype(["destinations", "store"], keys, "sqlite", new Set(["path", "table"]), {
    type: "sqlite",
    path: "shop.db",
    table: "example",
  });
  expect(read(patchAll(TEXT, edits)).table).toEqual({
    name: "shop",
    destinations: {
      store: {
        type: "sqlite",
        daemon: "hub",
        from: "orders",
        table: "orders",
        spool: { quota: "1GiB" },
        path: "shop.db",
      },
    },
  });
});
