// The two ways in.

export const ENROL_TABS = [
  ["With a string", "/enrol"],
  ["With approval", "/enrol/approval"],
] as const;
