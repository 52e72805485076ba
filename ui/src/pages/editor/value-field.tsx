// One setting of a node, in the form that its component's schema asks for. Knows shapes and values; no workflow.

import { Plus, X } from "lucide-react";
import { type ReactNode, useId, useState } from "react";
import { Button, IconButton } from "@/components/button";
import { Input, Select, Textarea } from "@/components/field";
import { type FormField, fits, type Shape, startOf } from "@/workflow/fields";
import { isTable, readValue, same, type Value, write } from "@/workflow/value";
import { own } from "./pressed";

interface EditProps<S extends Shape = Shape> {
  shape: S;
  value: Value | undefined;
  /** `undefined` takes it out of the text. */
  onChange: (value: Value | undefined) => void;
  id: string;
  label: string;
  describedBy?: string | undefined;
  isWrong?: boolean;
  /** What holds while nothing is set. */
  fallback?: string;
}

const naming = ({ id, label, describedBy, isWrong }: EditProps) => ({
  id,
  "aria-label": label,
  "aria-describedby": describedBy,
  "aria-invalid": isWrong || undefined,
});

/** What is typed, while it is no value yet: `0.` on the way to `0.5`. */
function useTyped(
  value: Value | undefined,
  show: (value: Value) => string,
  parse: (text: string) => Value | undefined,
) {
  const [typed, setTyped] = useState<string | null>(null);
  const stands = typed !== null && same(parse(typed), value) ? typed : null;
  const isUnread = typed !== null && typed !== "" && parse(typed) === undefined;
  return {
    text: stands ?? (isUnread ? typed : value === undefined ? "" : show(value)),
    isUnread,
    type: setTyped,
  };
}

function TextEdit(props: EditProps<Extract<Shape, { kind: "text" }>>) {
  const { shape, value, onChange, fallback } = props;
  const text = typeof value === "string" ? value : "";
  const change = (next: string) => onChange(next === "" ? undefined : next);
  if (shape.isLong || text.includes("\n")) {
    const rows = Math.min(16, Math.max(3, text.split("\n").length));
    return <Textarea {...naming(props)} rows={rows} value={text} onChange={(event) => change(event.target.value)} />;
  }
  return (
    <Input {...naming(props)} value={text} placeholder={fallback} onChange={(event) => change(event.target.value)} />
  );
}

function parseNumber(text: string, isWhole: boolean): Value | undefined {
  const plain = text.trim().replaceAll("_", "");
  if (/^[+-]?\d+$/.test(plain)) return BigInt(plain.replace("+", ""));
  if (isWhole || plain === "" || !Number.isFinite(Number(plain))) return undefined;
  return Number(plain);
}

function NumberEdit(props: EditProps<Extract<Shape, { kind: "integer" | "number" }>>) {
  const { shape, value, onChange, fallback } = props;
  const parse = (text: string) => parseNumber(text, shape.kind === "integer");
  const { text, isUnread, type } = useTyped(value, (each) => (typeof each === "string" ? each : write(each)), parse);
  return (
    <>
      <Input
        {...naming(props)}
        {...own(isUnread)}
        inputMode="decimal"
        value={text}
        placeholder={fallback}
        aria-invalid={isUnread || props.isWrong || undefined}
        onChange={(event) => {
          type(event.target.value);
          const next = parse(event.target.value);
          if (next !== undefined || event.target.value === "") onChange(next);
        }}
      />
      {isUnread && (
        <p className="text-xs text-bad">This is not a {shape.kind === "integer" ? "whole number" : "number"}.</p>
      )}
    </>
  );
}

interface OptionsProps extends EditProps {
  options: readonly { value: string; label: string }[];
  chosen: string;
  onChoose: (value: string) => void;
}

function Options({ options, chosen, onChoose, ...props }: OptionsProps) {
  const { fallback } = props;
  const isKnown = chosen === "" || options.some(({ value }) => value === chosen);
  return (
    <Select {...naming(props)} value={chosen} onChange={(event) => onChoose(event.target.value)}>
      <option value="">{fallback ? `default: ${fallback}` : "not set"}</option>
      {options.map(({ value, label }) => (
        <option key={value} value={value}>
          {label}
        </option>
      ))}
      {!isKnown && <option value={chosen}>{chosen}</option>}
    </Select>
  );
}

function ChoiceEdit(props: EditProps<Extract<Shape, { kind: "choice" }>>) {
  const { shape, value, onChange } = props;
  const chosen = typeof value === "string" ? value : "";
  const help = shape.options.find((option) => option.value === chosen)?.help;
  return (
    <>
      <Options
        {...props}
        options={shape.options.map((option) => ({ value: option.value, label: option.value }))}
        chosen={chosen}
        onChoose={(next) => onChange(next === "" ? undefined : next)}
      />
      {help && <p className="text-xs text-muted">{help}</p>}
    </>
  );
}

const SECRETS = [
  { value: "secret", label: "in the daemon's store" },
  { value: "env", label: "in an environment variable" },
  { value: "file", label: "in a file" },
  { value: "plain", label: "written here, for all to read" },
];
const SECRET_WORDS: Record<string, string> = {
  secret: "Its name",
  env: "The variable",
  file: "The file",
  plain: "The value",
};

function SecretEdit(props: EditProps) {
  const { value, onChange, label } = props;
  const [kind = "plain", inner = ""] =
    value === undefined ? ["", ""] : isTable(value) ? (Object.entries(value)[0] ?? []) : ["plain", value];
  const text = typeof inner === "string" ? inner : "";
  const make = (to: string, what: string): Value | undefined =>
    to === "" ? undefined : to === "plain" ? what : { [to]: what };
  const word = SECRET_WORDS[kind];
  return (
    <div className="flex flex-col gap-1">
      <Options {...props} options={SECRETS} chosen={kind} onChoose={(next) => onChange(make(next, text))} />
      {word && (
        <Input
          aria-label={`${label}: ${word}`}
          placeholder={word}
          value={text}
          onChange={(event) => onChange(make(kind, event.target.value))}
        />
      )}
      {kind === "plain" && <p className="text-xs text-warn">Whoever may read the workflow reads this too.</p>}
    </div>
  );
}

const isLines = (value: Value | undefined): value is string[] =>
  value === undefined ||
  (Array.isArray(value) && value.every((item) => typeof item === "string" && !item.includes("\n")));
const parseLines = (text: string): Value => text.split("\n").filter((line) => line !== "");

/** Texts, one a line: a whole column can be pasted. */
function LinesEdit(props: EditProps) {
  const { value, onChange } = props;
  const { text, type } = useTyped(value, (each) => (each as string[]).join("\n"), parseLines);
  const rows = Math.min(8, Math.max(2, text.split("\n").length));
  return (
    <Textarea
      {...naming(props)}
      rows={rows}
      placeholder="one a line"
      value={text}
      onChange={(event) => {
        type(event.target.value);
        const next = parseLines(event.target.value) as string[];
        onChange(next.length === 0 ? undefined : next);
      }}
    />
  );
}

const Row = ({ children, what, onRemove }: { children: ReactNode; what: string; onRemove: () => void }) => (
  <li className="flex items-start gap-1">
    <div className="flex min-w-0 flex-1 flex-col gap-1">{children}</div>
    <IconButton label={`Remove ${what}`} onClick={onRemove}>
      <X aria-hidden="true" />
    </IconButton>
  </li>
);

const More = ({ what, onClick }: { what: string; onClick: () => void }) => (
  <Button kind="quiet" className="self-start" onClick={onClick}>
    <Plus aria-hidden="true" />
    {what}
  </Button>
);

function ListEdit(props: EditProps<Extract<Shape, { kind: "list" }>>) {
  const { shape, value, onChange, label, id } = props;
  const items = Array.isArray(value) ? value : [];
  if (shape.item.kind === "text" && isLines(value)) return <LinesEdit {...props} />;
  const put = (index: number, item: Value | undefined) =>
    onChange(items.map((each, at) => (at === index ? (item ?? startOf(shape.item)) : each)));
  const remove = (index: number) => {
    const rest = items.filter((_, at) => at !== index);
    onChange(rest.length === 0 ? undefined : rest);
  };
  return (
    <fieldset id={id} aria-label={label} className="flex flex-col gap-1.5">
      <ul className="flex flex-col gap-1.5">
        {items.map((item, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: an item is nothing but its place
          <Row key={index} what={`${label} ${index + 1}`} onRemove={() => remove(index)}>
            <ValueEdit
              shape={shape.item}
              value={item}
              onChange={(next) => put(index, next)}
              id={`${id}-${index}`}
              label={`${label} ${index + 1}`}
            />
          </Row>
        ))}
      </ul>
      <More what={`Add to ${label}`} onClick={() => onChange([...items, startOf(shape.item)])} />
    </fieldset>
  );
}

function MapEdit(props: EditProps<Extract<Shape, { kind: "map" }>>) {
  const { shape, value, onChange, label, id } = props;
  const [fresh, setFresh] = useState("");
  const table = isTable(value) ? value : {};
  const entries = Object.entries(table);
  const isTaken = Object.hasOwn(table, fresh);
  const put = (all: (readonly [string, Value])[]) => onChange(all.length === 0 ? undefined : Object.fromEntries(all));
  const add = () => {
    if (fresh === "" || isTaken) return;
    put([...entries, [fresh, startOf(shape.item)]]);
    setFresh("");
  };
  return (
    <fieldset id={id} aria-label={label} className="flex flex-col gap-1.5">
      <ul className="flex flex-col gap-1.5">
        {entries.map(([key, each]) => (
          <Row key={key} what={key} onRemove={() => put(entries.filter(([other]) => other !== key))}>
            <span className="text-xs text-muted">{key}</span>
            <ValueEdit
              shape={shape.item}
              value={each}
              onChange={(next) =>
                put(entries.map(([other, was]) => [other, other === key ? (next ?? startOf(shape.item)) : was]))
              }
              id={`${id}-${key}`}
              label={`${label}: ${key}`}
            />
          </Row>
        ))}
      </ul>
      <div className="flex gap-1">
        <Input
          {...own(true)}
          aria-label={`New name in ${label}`}
          placeholder="new name"
          value={fresh}
          onChange={(event) => setFresh(event.target.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter") return;
            event.preventDefault();
            add();
          }}
        />
        <Button disabled={fresh === "" || isTaken} onClick={add}>
          Add
        </Button>
      </div>
    </fieldset>
  );
}

function GroupEdit(props: EditProps<Extract<Shape, { kind: "group" }>>) {
  const { shape, value, onChange, label, id } = props;
  const table = isTable(value) ? value : {};
  const put = (key: string, next: Value | undefined) => {
    const { [key]: _, ...rest } = table;
    const all = next === undefined ? rest : { ...table, [key]: next };
    onChange(Object.keys(all).length === 0 ? undefined : all);
  };
  return (
    <fieldset id={id} aria-label={label} className="flex flex-col gap-3 border-l-2 border-line pl-3">
      {shape.fields.map((field) => (
        <SettingField
          key={field.key}
          field={field}
          value={table[field.key]}
          onChange={(next) => put(field.key, next)}
        />
      ))}
    </fieldset>
  );
}

function VariantsEdit(props: EditProps<Extract<Shape, { kind: "variants" }>>) {
  const { shape, value, onChange, label } = props;
  const at = value === undefined ? -1 : shape.options.findIndex((option) => option.matches(value));
  const option = shape.options[at];
  const isFixed = option?.shape.kind === "choice" && option.shape.options.length === 1;
  return (
    <div className="flex flex-col gap-1">
      <Options
        {...props}
        options={shape.options.map((each, index) => ({ value: String(index), label: each.label }))}
        chosen={at < 0 ? "" : String(at)}
        onChoose={(next) => onChange(next === "" ? undefined : shape.options[Number(next)]?.start)}
      />
      {option?.help && <p className="text-xs text-muted">{option.help}</p>}
      {option && !isFixed && (
        <ValueEdit
          shape={option.shape}
          value={value}
          onChange={onChange}
          id={`${props.id}-in`}
          label={`${label}: ${option.label}`}
        />
      )}
    </div>
  );
}

function TomlEdit(props: EditProps) {
  const { value, onChange } = props;
  const { text, isUnread, type } = useTyped(value, (each) => write(each, " ").replaceAll(/\s*\n\s*/g, " "), readValue);
  return (
    <>
      <Input
        {...naming(props)}
        {...own(isUnread)}
        className="font-mono"
        value={text}
        placeholder="a value as in TOML"
        onChange={(event) => {
          type(event.target.value);
          const next = readValue(event.target.value);
          if (next !== undefined || event.target.value === "") onChange(next);
        }}
      />
      {isUnread && <p className="text-xs text-bad">This is not a value of TOML yet: a text stands in quotes.</p>}
    </>
  );
}

export function ValueEdit(props: EditProps): ReactNode {
  const { shape, value, fallback } = props;
  if (value !== undefined && !fits(shape, value) && shape.kind !== "integer" && shape.kind !== "number") {
    return <TomlEdit {...props} />;
  }
  switch (shape.kind) {
    case "text":
      return <TextEdit {...props} shape={shape} />;
    case "integer":
    case "number":
      return <NumberEdit {...props} shape={shape} />;
    case "flag": {
      const words = ["true", "false"].map((each) => ({ value: each, label: each }));
      const chosen = value === undefined ? "" : String(value);
      const choose = (next: string) => props.onChange(next === "" ? undefined : next === "true");
      return (
        <Options {...props} options={words} chosen={chosen} onChoose={choose} {...(fallback ? { fallback } : {})} />
      );
    }
    case "choice":
      return <ChoiceEdit {...props} shape={shape} />;
    case "secret":
      return <SecretEdit {...props} />;
    case "list":
      return <ListEdit {...props} shape={shape} />;
    case "map":
      return <MapEdit {...props} shape={shape} />;
    case "group":
      return <GroupEdit {...props} shape={shape} />;
    case "variants":
      return <VariantsEdit {...props} shape={shape} />;
    case "toml":
      return <TomlEdit {...props} />;
  }
}

interface SettingFieldProps {
  field: FormField;
  value: Value | undefined;
  onChange: (value: Value | undefined) => void;
  error?: string | undefined;
  /** Where it stands in the text, for whoever jumps there. */
  place?: string;
}

/** A setting with its name, what it is for, and what is wrong with it. */
export function SettingField({ field, value, onChange, error, place }: SettingFieldProps) {
  const id = useId();
  const help = [field.help, field.unit && !field.help.includes(field.unit) ? `In ${field.unit}.` : ""]
    .filter(Boolean)
    .join(" ");
  const notes = [help && `${id}-help`, error && `${id}-error`].filter(Boolean).join(" ");
  return (
    <div className="flex min-w-0 flex-col gap-1" data-place={place}>
      <label htmlFor={id} className="flex items-baseline gap-1.5 text-sm font-medium">
        {field.key}
        {field.isRequired && <span className="text-xs font-normal text-muted">required</span>}
      </label>
      <ValueEdit
        shape={field.shape}
        value={value}
        onChange={onChange}
        id={id}
        label={field.key}
        describedBy={notes || undefined}
        isWrong={Boolean(error)}
        fallback={field.default}
      />
      {error && (
        <p id={`${id}-error`} className="text-xs text-bad">
          {error}
        </p>
      )}
      {help && (
        <p id={`${id}-help`} className="line-clamp-3 text-xs text-muted" title={help}>
          {help}
        </p>
      )}
    </div>
  );
}
