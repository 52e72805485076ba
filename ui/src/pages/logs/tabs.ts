// What was written, and what happened.

export const LOG_TABS = [
  ["Lines of daemons", "/logs"],
  ["Events", "/logs/events"],
] as const;
