// The dead letters of a workflow: records that could not be delivered, why, and trying them again, mended or as they are.

import { useMutation, useQueries, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useParams } from "wouter";
import { keys } from "@/api/keys";
import { discardLetters, lettersQuery, replayLetters, type Which } from "@/api/operator";
import { useWorkflowStatus } from "@/api/queries";
import type { Letter, LettersDone } from "@/api/types";
import { Allowed, useMay } from "@/components/allowed";
import { Button } from "@/components/button";
import { Callout, Failure } from "@/components/callout";
import { CliButton, shellWord } from "@/components/copy";
import { Data } from "@/components/data";
import { ConfirmButton } from "@/components/dialog";
import { Input, Select } from "@/components/field";
import { useFilterHint } from "@/components/list-filter";
import { Empty, Loading, Page } from "@/components/page";
import { Status } from "@/components/status";
import { Time } from "@/components/time";
import { tell } from "@/components/toast";
import { type SortableColumn, VirtualTable } from "@/components/virtual-table";
import { WorkflowTabs } from "@/components/workflow-header";
import { bytes, count, number, several } from "@/lib/format";
import { useSearchState } from "@/lib/search";
import { fitsWords } from "@/lib/words";
import { useLettersAgain } from "./again";
import { LetterDialog } from "./letter";
import { causes, cliOf, STATES, sum, told } from "./letters";

/** Daemons that are asked at the same time. */
const DAEMONS_MAX = 8;
/** Causes that are named; the rest is a number. */
const CAUSES_MAX = 4;

export default function Letters() {
  const { name = "" } = useParams();
  const status = useWorkflowStatus(name);
  const [daemon] = useSearchState("daemon");
  const of = daemon === "" ? "" : ` --daemon ${shellWord(daemon)}`;
  return (
    <Page title={name} actions={<CliButton command={`mycelial dlq list ${shellWord(name)}${of}`} />}>
      <WorkflowTabs name={name} />
      <Allowed needs="operator" what="Looking at records">
        <Data query={status}>
          {({ parts }) => <Of name={name} daemons={[...new Set(parts.map(({ daemon }) => daemon))]} />}
        </Data>
      </Allowed>
    </Page>
  );
}

function Of({ name, daemons }: { name: string; daemons: readonly string[] }) {
  const [daemon, setDaemon] = useSearchState("daemon");
  // Not the list's: whoever mends a letter goes on when it leaves the list meanwhile.
  const [shown, setShown] = useState<Letter | null>(null);
  const from = daemon !== "" ? [daemon] : daemons.slice(0, DAEMONS_MAX);
  const ask = useLettersAgain(name, from);
  const found = useQueries({
    queries: from.map((each) => lettersQuery(each, name)),
    combine: (results) => ({
      letters: results.flatMap(({ data }) => data?.items ?? []),
      more: results.some(({ data }) => data !== undefined && data.next !== null),
      gone: results.flatMap(({ data }) => data?.boxes ?? []).reduce((sum, { evicted }) => sum + evicted, 0),
      errors: results.flatMap(({ error }) => (error ? [error] : [])),
      isPending: results.some(({ isPending }) => isPending),
    }),
  });
  const rest = daemons.length - DAEMONS_MAX;
  // What is wrong with all of them is wrong once.
  const errors = [...new Map(found.errors.map((error) => [error.message, error])).values()];
  return (
    <>
      {daemons.length > 1 && (
        <div className="flex flex-wrap items-center gap-3">
          <div>
            <Select aria-label="Daemon" value={daemon} onChange={(event) => setDaemon(event.target.value)}>
              <option value="">{rest > 0 ? `The first ${DAEMONS_MAX} daemons` : "All its daemons"}</option>
              {daemons.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </Select>
          </div>
        </div>
      )}
      {errors.map((error) => (
        <Failure key={error.message} error={error} onRetry={ask} />
      ))}
      {found.isPending ? (
        <Loading what="Asking the daemons" />
      ) : found.letters.length > 0 ? (
        <List workflow={name} letters={found.letters} isMore={found.more} onShow={setShown} />
      ) : (
        errors.length === 0 && (
          <Empty title="No dead letters">
            What a node cannot take is kept here with its reason, and neighbours pass.{" "}
            {found.gone > 0 && <>{`${count(found.gone, "letter")} had to go because there was no room.`}</>}
          </Empty>
        )
      )}
      {shown && <LetterDialog letter={shown} onClose={() => setShown(null)} />}
    </>
  );
}

/** On each of the daemons that have some, one after the other. */
async function everywhere(run: (which: Which) => Promise<LettersDone>, places: readonly Which[]) {
  const done: LettersDone[] = [];
  for (const which of places) done.push(await run(which));
  return sum(done);
}

function useReplay(workflow: string) {
  const queries = useQueryClient();
  return useMutation({
    mutationFn: (places: readonly Which[]) => everywhere(replayLetters, places),
    onSuccess: (done) => tell(told(done, "tried again")),
    onSettled: () => queries.invalidateQueries({ queryKey: keys.lettersOf(workflow) }),
  });
}

interface ListProps {
  workflow: string;
  letters: readonly Letter[];
  isMore: boolean;
  onShow: (letter: Letter) => void;
}

function List({ workflow, letters, isMore, onShow }: ListProps) {
  const [typed, setTyped] = useSearchState("q");
  const hint = useFilterHint("Filter by node, daemon or reason; -word leaves out");
  const may = useMay("operator");
  const replay = useReplay(workflow);
  const rows = letters.filter(({ daemon, node, reason }) => fitsWords([daemon, node, reason], typed));
  const places = [...new Set(rows.map(({ daemon }) => daemon))];
  const isAll = typed.trim() === "";
  // Without a filter all of them are meant, also those that are not listed.
  const which = (daemon: string): Which => ({
    daemon,
    workflow,
    ids: isAll ? [] : rows.filter((each) => each.daemon === daemon).map(({ id }) => id),
  });
  const meant = places.map(which);
  const again = cliOf("replay", meant);
  const columns: readonly SortableColumn<Letter>[] = [
    {
      name: "Letter",
      isPlain: true,
      cell: (letter) => (
        <Button kind="quiet" className="h-7 text-accent!" onClick={() => onShow(letter)}>
          {letter.letter}
        </Button>
      ),
    },
    { name: "Died", isPlain: true, cell: ({ unix_ms }) => <Time unixMs={unix_ms} /> },
    { name: "At", cell: ({ node, path }) => <span title={path}>{node}</span> },
    {
      name: "Why",
      cell: ({ reason, refusal, replays }) => (
        <>
          {reason}
          {replays > 0 && <span className="block text-xs text-muted">{`tried again ${number(replays)} times`}</span>}
          {refusal !== "" && <span className="block text-xs text-warn">{refusal}</span>}
        </>
      ),
      className: "md:w-2/5",
    },
    { name: "State", isPlain: true, cell: ({ state }) => <Status tone={STATES[state][0]}>{STATES[state][1]}</Status> },
    { name: "Size", isNumber: true, cell: ({ record_bytes }) => bytes(record_bytes) },
  ];
  return (
    <>
      <Causes letters={letters} />
      <div className="flex flex-wrap items-center gap-x-3 gap-y-2">
        <div className="min-w-48 flex-1 max-md:basis-full">
          <Input
            type="search"
            data-search
            aria-label="Filter letters"
            placeholder={hint}
            value={typed}
            onChange={(event) => setTyped(event.target.value)}
          />
        </div>
        <span role="status" className="tabular text-sm text-muted">
          {rows.length === letters.length
            ? count(letters.length, "letter")
            : `${number(rows.length)} of ${count(letters.length, "letter")}`}
          {isMore && " and more"}
        </span>
        {may && rows.length > 0 && (
          <>
            <Button busy={replay.isPending} onClick={() => replay.mutate(meant)}>
              {isAll ? "Try all again" : "Try these again"}
            </Button>
            {again !== undefined && <CliButton command={again} />}
            <Discard workflow={workflow} places={meant} found={rows} isAll={isAll} />
          </>
        )}
      </div>
      {replay.isError && <Failure error={replay.error} />}
      {rows.length > 0 ? (
        <VirtualTable label="Dead letters" columns={columns} rows={rows} rowKey={({ letter }) => letter} />
      ) : (
        <Empty
          title="No letter fits the filter"
          action={<Button onClick={() => setTyped("")}>Clear the filter</Button>}
        />
      )}
    </>
  );
}

/** What is wrong, without reading every letter. */
function Causes({ letters }: { letters: readonly Letter[] }) {
  const all = causes(letters);
  return (
    <Callout tone="warn" title={all.length === 1 ? "All of one cause" : `${count(all.length, "cause")}`}>
      <ul>
        {all.slice(0, CAUSES_MAX).map(({ node, reason, letters: found }) => (
          <li key={`${node} ${reason}`} className="break-words">
            {`${number(found)} at `}
            <strong>{node}</strong>
            {found > 1 && ", such as"}: {reason}
          </li>
        ))}
      </ul>
      {all.length > CAUSES_MAX && <p>{`and ${all.length - CAUSES_MAX} more`}</p>}
    </Callout>
  );
}

interface DiscardProps {
  workflow: string;
  places: readonly Which[];
  found: readonly Letter[];
  isAll: boolean;
}

function Discard(now: DiscardProps) {
  const queries = useQueryClient();
  // What was asked about is what is discarded, whatever comes meanwhile.
  const [asked, ask] = useState(now);
  const { isAll } = now;
  const { workflow, places, found } = asked;
  const what = asked.isAll ? "all letters" : count(found.length, "letter");
  const command = cliOf("purge", places);
  return (
    <ConfirmButton
      action="Discard"
      label={isAll ? "Discard all" : "Discard these"}
      onOpen={() => ask(now)}
      title={`Discard ${what} of ${workflow}?`}
      {...(command === undefined ? {} : { command })}
      onConfirm={async () => {
        tell(told(await everywhere(discardLetters, places), "discarded"));
        await queries.invalidateQueries({ queryKey: keys.lettersOf(workflow) });
      }}
    >
      {`They lie on ${several(places.map(({ daemon }) => daemon))}. `}
      Their records are gone for good, and count as dead for ever. Those in doubt stay.
    </ConfirmButton>
  );
}
