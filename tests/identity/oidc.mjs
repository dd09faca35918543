// A token issuer for the tests: oidc-provider behind TLS.
// node oidc.mjs SETTINGS MODULES: a JSON file (see oidc.py), and the folder with node_modules.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [settings, modules] = process.argv.slice(2);
const given = JSON.parse(readFileSync(settings, 'utf8'));
const main = pathToFileURL(join(modules, 'node_modules/oidc-provider/lib/index.js'));
const { Provider } = await import(main);

const provider = new Provider(given.issuer, {
  jwks: given.jwks,
  clients: Object.keys(given.users).map((name) => ({
    client_id: name,
    client_secret: given.secret,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
  })),
  clientDefaults: { id_token_signed_response_alg: given.algorithm },
  extraTokenClaims: (_, token) => ({ groups: given.users[token.clientId] }),
  ttl: { ClientCredentials: given.seconds },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, audience) => ({
        audience,
        scope: '',
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: given.algorithm } },
      }),
    },
  },
});
const credential = { key: readFileSync(given.key), cert: readFileSync(given.certificate) };
createServer(credential, provider.callback()).listen(given.port, '127.0.0.1');
