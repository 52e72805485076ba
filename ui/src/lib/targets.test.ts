import { expect, it } from "vitest";
import type { DaemonItem, WorkflowView } from "@/api/types";
import { targetsOf } from "./targets";

const daemon = (name: string, site: string) =>
  ({ name, presence: "online", version: "0.1.0", labels: { site } as Record<string, string> }) as DaemonItem;
const DAEMONS = [daemon("gateway", "berlin"), daemon("hub", "bonn"), daemon("pump", "berlin")];
const WORKFLOWS = [{ name: "shop", daemons: ["hub"] }] as WorkflowView[];
const GROUPS = new Map([["north", "site=berlin"]]);

it.each([
  ["gateway", ["gateway"]],
  ["gate", []],
  ["", []],
  ["site=berlin", ["gateway", "pump"]],
  ["group:north -name:pump", ["gateway"]],
  ["runs:shop", ["hub"]],
  ["group:south", []],
  ["name:*", ["gateway", "hub", "pump"]],
])("%s", (place, expected) => expect(targetsOf(place, DAEMONS, WORKFLOWS, GROUPS)).toEqual(expected));
