// The query cache's keys, in one place. A mutation names what it makes stale by these.

export const keys = {
  info: ["info"],
  daemons: ["daemons"],
  daemon: (name: string) => ["daemons", name],
  workflows: ["workflows"],
  workflow: (name: string) => ["workflows", name],
  workflowStatus: (name: string) => ["workflows", name, "status"],
  revisions: (name: string) => ["workflows", name, "revisions"],
  revision: (name: string, number: number) => ["workflows", name, "revisions", number],
  tokens: ["tokens"],
  streams: ["streams"],
  problems: (text: string) => ["problems", text],
  diff: (text: string) => ["diff", text],
  rollouts: ["rollouts"],
  rollout: (id: number) => ["rollouts", id],
  alerts: ["alerts"],
  rules: ["alerts", "rules"],
  series: (subject: string, metric: string, lastS: number) => ["series", subject, metric, lastS],
  users: ["users"],
  components: ["components"],
  accessList: (broker: string) => ["access-list", broker],
} as const;
