// Numbers, sizes and times as people read them. Pure: the time is an argument.

const NUMBER = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const number = (value: number) => NUMBER.format(value);
export const compact = (value: number) => COMPACT.format(value);

export const percent = (value: number) => `${value.toFixed(1)} %`;

/** "1 daemon", "2 daemons". */
export const count = (value: number, one: string, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

/** "a, b and c"; of many the first ones, and how many more. */
export function several(names: readonly string[], max = 5) {
  const rest = names.length - max;
  if (rest > 0) return `${names.slice(0, max).join(", ")} and ${number(rest)} more`;
  const last = names.at(-1) ?? "";
  return names.length < 2 ? last : `${names.slice(0, -1).join(", ")} and ${last}`;
}

/** What people type, and what the command line says. */
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const UNIT = 1_024;

/** Bytes with a unit of 1,024; 0 as "0 B". */
export function bytes(value: number) {
  let scaled = value;
  let unit = 0;
  while (Math.abs(scaled) >= UNIT - 0.5 && unit < UNITS.length - 1) {
    scaled /= UNIT;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(scaled) >= 99.95 ? 0 : 1;
  return `${scaled.toFixed(digits)} ${UNITS[unit]}`;
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** A length of time, in its two largest units at most: "42 s", "3 min", "2 h 5 min", "3 days". */
export function span(ms: number) {
  const rest = Math.max(0, ms);
  if (rest < 2 * MINUTE) return `${Math.floor(rest / SECOND)} s`;
  if (rest < HOUR) return `${Math.floor(rest / MINUTE)} min`;
  if (rest < 2 * DAY) {
    const minutes = Math.floor((rest % HOUR) / MINUTE);
    return `${Math.floor(rest / HOUR)} h${minutes > 0 && rest < DAY ? ` ${minutes} min` : ""}`;
  }
  return `${Math.floor(rest / DAY)} days`;
}

/** How long ago, or how long from now. */
export function relative(unixMs: number, nowMs: number) {
  const ms = nowMs - unixMs;
  if (Math.abs(ms) < 5 * SECOND) return "now";
  return ms > 0 ? `${span(ms)} ago` : `in ${span(-ms)}`;
}

const EXACT = new Intl.DateTimeFormat("en-GB", {
  year: "numeric",
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

const CLOCK_S = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DATE = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** Hours, minutes and seconds; with its date when that is not today. */
export function moment(unixMs: number, nowMs: number) {
  const isToday = DATE.format(unixMs) === DATE.format(nowMs) && Math.abs(nowMs - unixMs) < 2 * DAY;
  return isToday ? CLOCK_S.format(unixMs) : `${DATE.format(unixMs)} ${CLOCK_S.format(unixMs)}`;
}

/** The zone in which times are shown today: "UTC", "GMT+1". */
export const ZONE = EXACT.formatToParts(Date.now()).find(({ type }) => type === "timeZoneName")?.value ?? "UTC";

/** Date, time and zone. */
export const exact = (unixMs: number) => EXACT.format(unixMs);
/** Hours and minutes. */
export const clock = (unixMs: number) => CLOCK.format(unixMs);
/** Times along an axis: as exact as tells them apart. */
export function ticks(unixMs: readonly number[]) {
  const length = (unixMs.at(-1) ?? 0) - (unixMs[0] ?? 0);
  const shown = length > 2 * DAY ? DATE : length > HOUR ? CLOCK : CLOCK_S;
  return unixMs.map((each) => shown.format(each));
}

/** What stands after a colon elsewhere stands alone here: a capital letter and a full stop. */
export function sentence(text: string) {
  if (text === "") return "";
  const whole = text[0]?.toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
