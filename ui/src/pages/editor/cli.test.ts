import { expect, it } from "vitest";
import { cliToCheck, cliToPreview, cliToTest } from "./cli";

it("tests run on the daemon that is chosen", () =>
  expect(cliToTest("shop", "hub")).toBe("mycelial workflow test shop.toml --daemon hub"));

it("connections are tested from the daemon that is chosen", () =>
  expect(cliToCheck("shop", "hub")).toBe("mycelial workflow check -f shop.toml --daemon hub"));

it("a preview is given the records of all sources that have some", () =>
  expect(cliToPreview("shop", ["db", "other"], "hub")).toBe(
    "mycelial workflow preview shop.toml --given db=db.jsonl --given other=other.jsonl --daemon hub",
  ));
