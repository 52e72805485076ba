// One's own password.

import { changePassword } from "@/api/actions";
import { useUser } from "@/api/session";
import { TextLink } from "@/components/link";
import { Panel, Section } from "@/components/page";
import { tell } from "@/components/toast";
import { PasswordForm } from "../users/password-form";

/** Who the plane says that somebody with a one-time link is. */
const OWNER = "owner";

export function OwnPassword() {
  const { user, isSetup } = useUser();
  if (!user) return null;
  return (
    <Section title="Your password">
      <Panel className="px-4 py-3">
        {user.name === OWNER ? (
          <p className="text-sm text-muted">
            You came in by a one-time link, which has no password.{" "}
            <TextLink href="/settings/users">{isSetup ? "Make the first admin" : "See the users"}</TextLink>
          </p>
        ) : (
          <PasswordForm
            action="Change my password"
            what={`You are ${user.name}. Your other browsers are logged out by it.`}
            needsOld
            onSubmit={async ({ old, fresh }) => {
              await changePassword(old, fresh);
              tell("Your password is changed.");
            }}
          />
        )}
      </Panel>
    </Section>
  );
}
