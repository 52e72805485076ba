// The broker's access list, in the language of the broker that is used.

import { useQuery } from "@tanstack/react-query";
import { accessListQuery } from "@/api/queries";
import { CliButton, Code } from "@/components/copy";
import { Data } from "@/components/data";
import { Select } from "@/components/field";
import { Section } from "@/components/page";
import { useSearchState } from "@/lib/search";

export function AccessList() {
  const [broker, setBroker] = useSearchState("broker", "mosquitto");
  const list = useQuery(accessListQuery(broker));
  return (
    <Section
      title="The broker’s access list"
      actions={
        <>
          <CliButton command={`mycelial acl --for ${broker}`} />
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
