// An OpenID Connect provider on 127.0.0.1: `oidc-provider`, which is certified, with its own pages to log in. Lets everybody in under
// the name that they type. Below `/-control/` it is told to lie, and to change its keys.
//
// Arguments: port.

import { createServer } from "node:http";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import Provider from "oidc-provider";

const port = Number(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const redirect = "http://127.0.0.1/api/v1/session/oidc/answer";

// Who is in which group: by name.
const GROUPS = {
  ada: ["staff", "ops"],
  bob: ["staff", "berlin"],
  eve: ["visitors"],
};

const client = (client_id, id_token_signed_response_alg, more = {}) => ({
  client_id,
  client_secret: "a secret: with/signs+and spaces",
  // A native client's port does not matter: the plane's is another at each start.
  application_type: "native",
  redirect_uris: [redirect],
  grant_types: ["authorization_code"],
  response_types: ["code"],
  id_token_signed_response_alg,
  ...more,
});

async function keyPair(alg, kid) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { privateKey, jwk: { ...(await exportJWK(privateKey)), alg, kid, use: "sig" } };
}

let generation = 0;
let keys = {};
let provider;
let isInline = false;
let lie = "";
const asked = {};

async function make(isNew) {
  if (isNew) {
    generation += 1;
    keys = {
      RS256: await keyPair("RS256", `rs-${generation}`),
      ES256: await keyPair("ES256", `es-${generation}`),
    };
  }
  provider = new Provider(issuer, {
    clients: [
      client("plane-rs", "RS256"),
      client("plane-es", "ES256", { token_endpoint_auth_method: "client_secret_post" }),
      client("plane-public", "ES256", { token_endpoint_auth_method: "none", client_secret: undefined }),
    ],
    jwks: { keys: Object.values(keys).map((key) => key.jwk) },
    enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256"] },
    claims: { openid: ["sub"], profile: ["preferred_username", "groups"] },
    scopes: ["openid", "profile"],
    // Whether the token itself says what is asked for, or only the userinfo endpoint.
    conformIdTokenClaims: !isInline,
    pkce: { required: () => true },
    cookies: { keys: ["for tests only"] },
    findAccount: async (_context, id) => ({
      accountId: id,
      claims: async () => ({ sub: id, preferred_username: `${id}@example.com`, groups: GROUPS[id] ?? [] }),
    }),
    // Nobody is asked whether the plane may know who they are.
    loadExistingGrant: async (context) => {
      const grant = new context.oidc.provider.Grant({
        clientId: context.oidc.client.clientId,
        accountId: context.oidc.session.accountId,
      });
      grant.addOIDCScope("openid profile");
      await grant.save();
      return grant;
    },
  });
  provider.use(async (context, next) => {
    asked[context.path] = (asked[context.path] ?? 0) + 1;
    await next();
    if (lie && context.path === "/token" && context.body?.id_token) {
      context.body.id_token = await lied(context.body.id_token);
    }
  });
}

/** Another token instead of this one. */
async function lied(token) {
  const [header, claims] = token
    .split(".")
    .slice(0, 2)
    .map((part) => JSON.parse(Buffer.from(part, "base64url").toString()));
  const now = Math.floor(Date.now() / 1000);
  Object.assign(claims, {
    ...(lie === "nonce" && { nonce: "another" }),
    ...(lie === "audience" && { aud: "another" }),
    ...(lie === "issuer" && { iss: "https://id.example.com" }),
    ...(lie === "expired" && { iat: now - 7200, exp: now - 3600 }),
  });
  if (lie === "none") {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
    return `${part({ ...header, alg: "none" })}.${part(claims)}.`;
  }
  const own = keys[header.alg].privateKey;
  const foreign = async () => (await generateKeyPair(header.alg)).privateKey;
  return new SignJWT(claims).setProtectedHeader(header).sign(lie === "foreign" ? await foreign() : own);
}

async function control(url) {
  const [, , wish, word] = url.pathname.split("/");
  if (wish === "lie") lie = word === "nothing" ? "" : word;
  else if (wish === "rotate") await make(true);
  else if (wish === "inline") {
    isInline = word === "yes";
    await make(false);
  } else if (wish === "asked") return JSON.stringify(asked);
  else throw new Error(`nobody can do that: ${wish}`);
  return "";
}

await make(true);
createServer((request, response) => {
  const url = new URL(request.url, issuer);
  if (!url.pathname.startsWith("/-control/")) return provider.callback()(request, response);
  control(url).then(
    (said) => response.end(said),
    (error) => {
      response.statusCode = 500;
      response.end(String(error));
    },
  );
}).listen(port, "127.0.0.1", () => console.log("ready"));
