// The bus that the plane is on, and the broker's access list in the language of whichever broker is used.

import { useQuery } from "@tanstack/react-query";
import { Download } from "lucide-react";
import { accessListQuery, useSurroundings } from "@/api/queries";
import { Button } from "@/components/button";
import { CliButton, Code } from "@/components/copy";
import { Data } from "@/components/data";
import { Facts } from "@/components/facts";
import { Select } from "@/components/field";
import { Page, Panel, Section } from "@/components/page";
import { Tabs } from "@/components/tabs";
import { Whole } from "@/components/whole";
import { save } from "@/lib/save";
import { useSearchState } from "@/lib/search";
import { SETTINGS_TABS } from "./tabs";

export default function Broker() {
  return (
    <Page title="Settings" isWide={false}>
      <Tabs label="Views of the settings" tabs={SETTINGS_TABS} />
      <Whole what="The bus and its access list">
        <Bus />
        <AccessList />
      </Whole>
    </Page>
  );
}

function Bus() {
  const surroundings = useSurroundings();
  return (
    <Section title="The bus">
      <Panel className="px-4 py-3">
        <Data query={surroundings}>
          {({ bus, embedded, dir }) => (
            <Facts
              facts={[
                ["Broker", embedded ? "the embedded one, mycelial-broker" : "one of your own"],
                [
                  "Members use",
                  <span key="bus" className="flex flex-col font-mono text-xs leading-5">
                    {bus.map((address) => (
                      <span key={address}>{address}</span>
                    ))}
                  </span>,
                ],
                [
                  "Settings",
                  <code key="file" className="font-mono text-xs break-all">
                    {dir}/plane.toml
                  </code>,
                ],
              ]}
            />
          )}
        </Data>
      </Panel>
      <p className="max-w-prose text-sm text-muted">
        The plane, daemons and operators are all clients of it, and none of them trusts it: what travels is sealed. The
        address is changed in the settings file, and holds from the plane’s next start.
      </p>
    </Section>
  );
}

const FILES: Record<string, string> = { mosquitto: "mycelial.acl", nats: "mycelial.conf" };

function AccessList() {
  const [broker, setBroker] = useSearchState("broker", "mosquitto");
  const list = useQuery(accessListQuery(broker));
  const text = list.data?.text;
  return (
    <Section
      title="The broker’s access list"
      actions={
        <>
          <CliButton command={`mycelial acl export --broker ${broker}`} />
          <Button disabled={text === undefined} onClick={() => save(FILES[broker] ?? "mycelial.acl", text ?? "")}>
            <Download aria-hidden="true" />
            Export
          </Button>
          <Select aria-label="Broker" value={broker} onChange={(event) => setBroker(event.target.value)}>
            <option value="mosquitto">mosquitto</option>
            <option value="nats">nats-server</option>
          </Select>
        </>
      }
    >
      <p className="max-w-prose text-sm text-muted">
        Lets each member use its own subjects only. The embedded broker has these rules built in; for another one, put
        them into its configuration.
      </p>
      <Data query={list}>{({ text }) => <Code text={text.trim()} what="the access list" />}</Data>
    </Section>
  );
}
