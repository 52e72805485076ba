// The rules of alerts: those that come with the plane, and one's own. Every change sends all of one's own.

import { Plus } from "lucide-react";
import { useState } from "react";
import { useRules } from "@/api/queries";
import type { AlertRule, RuleShown } from "@/api/types";
import { Allowed, useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Failure } from "@/components/callout";
import { CliButton } from "@/components/copy";
import { Data } from "@/components/data";
import { Page } from "@/components/page";
import { Status } from "@/components/status";
import { type Column, Table } from "@/components/table";
import { Tabs } from "@/components/tabs";
import { tell } from "@/components/toast";
import { Whole } from "@/components/whole";
import { useChangeRule } from "./change";
import { RuleForm } from "./rule-form";
import { TABS } from "./tabs";
import { inWords, NEW, SEVERITIES } from "./words";

export default function Rules() {
  return (
    <Page title="Alerts" actions={<CliButton command="mycelial alert rules" />}>
      <Tabs label="Views of alerts" tabs={TABS} />
      <Whole what="Rules of alerts">
        <All />
      </Whole>
    </Page>
  );
}

function All() {
  const rules = useRules();
  return <Data query={rules}>{(all) => <List all={all} />}</Data>;
}

function List({ all }: { all: readonly RuleShown[] }) {
  const [edited, setEdited] = useState<AlertRule | null>(null);
  const change = useChangeRule(all);
  // What was clicked is shown at once.
  const soon = change.isPending ? change.variables.rule : null;
  const restore = useChangeRule(all);
  const may = useMay("operator");
  // Undone by storing it again: nothing else was lost with it.
  const remove = (rule: AlertRule) =>
    change.mutate(
      { name: rule.name, rule: null },
      {
        onSuccess: ({ items }) => {
          const isBack = items.some(({ name }) => name === rule.name);
          tell(isBack ? `${rule.name} is as it comes with the plane.` : `The rule ${rule.name} is removed.`, {
            label: "Undo",
            run: () => restore.mutate({ name: rule.name, rule }),
          });
        },
      },
    );
  const columns: readonly Column<RuleShown>[] = [
    {
      name: "Rule",
      cell: ({ name, comes_with_plane }) => (
        <>
          {name}
          {comes_with_plane && <span className="block text-xs text-muted">comes with the plane</span>}
        </>
      ),
    },
    { name: "Fires when", cell: inWords, className: "md:w-2/5" },
    { name: "Severity", cell: ({ severity }) => <Status tone={SEVERITIES[severity]}>{severity}</Status> },
    { name: "Tells", cell: ({ notify }) => (notify.length === 0 ? "all channels" : notify.join(", ")) },
    {
      name: "Is on",
      cell: ({ comes_with_plane: _, ...rule }) =>
        may ? (
          <label className="inline-flex min-h-6 items-center gap-2">
            <input
              type="checkbox"
              className="size-4 accent-accent"
              aria-label={`${rule.name} is on`}
              checked={soon?.name === rule.name ? soon.enabled : rule.enabled}
              // Not disabled meanwhile: it would lose the focus.
              onChange={() =>
                !change.isPending && change.mutate({ name: rule.name, rule: { ...rule, enabled: !rule.enabled } })
              }
            />
            {rule.enabled ? "on" : "off"}
          </label>
        ) : (
          <span>{rule.enabled ? "on" : "off"}</span>
        ),
    },
    ...(may
      ? [
          {
            name: "Actions",
            cell: ({ comes_with_plane, ...rule }: RuleShown) => (
              <span className="flex gap-1">
                <Button className="h-7" aria-label={`Change ${rule.name}`} onClick={() => setEdited(rule)}>
                  Change
                </Button>
                {!comes_with_plane && (
                  <Button className="h-7" aria-label={`Remove ${rule.name}`} onClick={() => remove(rule)}>
                    Remove
                  </Button>
                )}
              </span>
            ),
          },
        ]
      : []),
  ];
  return (
    <>
      <div className="flex flex-wrap items-center gap-3">
        <p className="max-w-prose text-sm text-muted">
          Rules are looked at every ten seconds. Whom they tell are the channels in the plane’s own settings.
        </p>
        <span className="ml-auto flex flex-wrap gap-2">
          <Allowed needs="operator" what="Changing rules">
            <Button kind="main" onClick={() => setEdited(NEW)}>
              <Plus aria-hidden="true" />
              New rule
            </Button>
          </Allowed>
        </span>
      </div>
      {(change.error ?? restore.error) && <Failure error={change.error ?? restore.error} />}
      <Table label="Rules" columns={columns} rows={all} rowKey={({ name }) => name} />
      {edited && <RuleForm all={all} initial={edited} onClose={() => setEdited(null)} />}
    </>
  );
}
