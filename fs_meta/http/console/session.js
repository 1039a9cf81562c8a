// The token of who looks, where the cluster asks for one, and requests that show it.
//
// It is kept in memory, and for this tab alone (session storage) if that is wished. It goes to this server only, in a
// header: never into an address, which ends up in logs and histories.

const KEY = "ember.token";
let token = "";
try {
  token = sessionStorage.getItem(KEY) ?? "";
} catch {
  // No storage: memory alone.
}

export function hasToken() {
  return token !== "";
}

export function setToken(value, keep) {
  token = value;
  try {
    if (value && keep) sessionStorage.setItem(KEY, value);
    else sessionStorage.removeItem(KEY);
  } catch {
    // As above.
  }
}

export class Refused extends Error {
  /** `status`: of HTTP; 0: no answer came. */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The response, if it is a success. Throws `Refused`, in the server's words. */
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "omit", ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the metadata server does not answer");
  }
  if (response.ok) return response;
  let detail = `the server answered ${response.status}`;
  try {
    detail = (await response.json()).detail ?? detail;
  } catch {
    // No problem document: its status has to do.
  }
  throw new Refused(response.status, detail);
}

export async function json(path, options) {
  return (await request(path, options)).json();
}
