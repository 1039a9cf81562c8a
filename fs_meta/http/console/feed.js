// The live feed: server-sent events, read with fetch, because an EventSource cannot show a token.
//
// It connects again by itself, sooner if the browser says that the network is back, and says what it does:
// "connecting", "live", "lost", "token" (one is asked for, or was refused). A page that nobody sees gives its connection
// back after a while: browsers have few for each server, and a server looks at the cluster for whoever is connected.

import { Refused, request } from "./session.js";

const PATH = "/api/v1/live";
const SILENT_MS = 10_000; // The server has something to say every three seconds.
const UNSEEN_MS = 60_000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];

export class Feed {
  #onEvent;
  #onState;
  #wake = null;
  #abort = null;
  #asking = false; // For a token: nothing else is of use.
  #unseen = false;

  constructor(onEvent, onState) {
    this.#onEvent = onEvent;
    this.#onState = onState;
    addEventListener("online", () => this.now());
    let unseen = 0;
    document.addEventListener("visibilitychange", () => {
      clearTimeout(unseen);
      if (document.hidden) {
        unseen = setTimeout(() => {
          this.#unseen = true;
          this.#abort?.abort();
        }, UNSEEN_MS);
        return;
      }
      this.#unseen = false;
      this.now();
    });
  }

  /** Do not wait any longer. */
  now() {
    if (!this.#asking) this.#wake?.();
  }

  /** There is a token now. */
  signedIn() {
    this.#asking = false;
    this.now();
  }

  async run() {
    let failures = 0;
    this.#onState({ state: "connecting" });
    for (;;) {
      let wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
      try {
        await this.#read(() => {
          failures = 0;
        });
        wait = 0; // The server ends a feed now and then: nothing is wrong.
        if (failures > 0) wait = RETRY_MS[0];
        failures += 1;
      } catch (error) {
        if (this.#unseen) {
          this.#onState({ state: "connecting" });
          await this.#pause(Infinity);
          continue;
        }
        failures += 1;
        if (error instanceof Refused && error.status === 401) {
          this.#asking = true;
          this.#onState({ state: "token", detail: error.message });
          await this.#pause(Infinity);
          continue;
        }
        const detail = error instanceof Refused ? error.message : "the connection was lost";
        this.#onState({ state: "lost", detail, retryAt: Date.now() + wait });
      }
      if (wait > 0) await this.#pause(wait);
    }
  }

  async #pause(milliseconds) {
    let timer;
    await new Promise((resolve) => {
      this.#wake = resolve;
      if (Number.isFinite(milliseconds)) timer = setTimeout(resolve, milliseconds);
    });
    clearTimeout(timer);
    this.#wake = null;
  }

  async #read(began) {
    const abort = new AbortController();
    this.#abort = abort;
    let silence = setTimeout(() => abort.abort(), SILENT_MS);
    try {
      const response = await request(PATH, { signal: abort.signal, headers: { accept: "text/event-stream" } });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => abort.abort(), SILENT_MS);
        rest += value;
        const parts = rest.split("\n\n");
        rest = parts.pop();
        for (const part of parts) this.#take(part, began);
      }
    } finally {
      clearTimeout(silence);
      abort.abort();
    }
  }

  #take(part, began) {
    let name = "message";
    let data = "";
    for (const line of part.split("\n")) {
      if (line.startsWith("event: ")) name = line.slice(7);
      else if (line.startsWith("data: ")) data += line.slice(6);
    }
    if (!data) return;
    if (name === "hello") {
      began();
      this.#onState({ state: "live" });
    }
    this.#onEvent(name, JSON.parse(data));
  }
}
