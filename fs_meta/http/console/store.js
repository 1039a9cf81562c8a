// What is known of the cluster: the newest of every event, the chains, and the samples of the last hour.

export class Store {
  constructor() {
    this.connection = { state: "connecting" };
    this.heardAt = null; // Date: of the last event.
    this.release = "";
    this.cluster = null;
    this.nodes = [];
    this.moves = [];
    this.clients = [];
    this.operations = [];
    this.slow = null; // Not told to everybody.
    this.chains = new Map();
    this.chainsChanged = 0; // How often.
    this.samples = new Samples();
  }

  take(name, value) {
    this.heardAt = new Date();
    switch (name) {
      case "hello":
        if (this.release && this.release !== value.release) location.reload(); // This page is of another release.
        this.release = value.release;
        break;
      case "chains":
        if (value.whole) this.chains = new Map();
        for (const chain of value.gone) this.chains.delete(chain);
        for (const chain of value.chains) this.chains.set(chain.chain, chain);
        this.chainsChanged += 1;
        break;
      case "samples":
        this.samples.take(value, this.heardAt.getTime());
        break;
      case "cluster":
      case "nodes":
      case "moves":
      case "clients":
      case "operations":
      case "slow":
        this[name] = value;
        break;
    }
  }
}

/** Points of the charts: `at[i]` in ms of this browser's clock, and one number or null for each series. */
export class Samples {
  constructor() {
    this.next = 0;
    this.at = [];
    this.series = {};
    this.intervalMs = 3000;
  }

  take(piece, nowMs) {
    const count = piece.age_s.length;
    if (piece.first !== this.next) {
      // Those before are of another server, or there is a hole that nobody can fill.
      this.at = [];
      this.series = {};
    }
    this.next = piece.first + count;
    this.intervalMs = piece.interval_s * 1000;
    const kept = this.at.length;
    for (const age of piece.age_s) this.at.push(nowMs - age * 1000);
    for (const [name, values] of Object.entries(piece.series)) {
      this.series[name] ??= new Array(kept).fill(null);
      this.series[name].push(...values);
    }
    const old = this.at.findIndex((at) => at >= nowMs - piece.span_s * 1000);
    const drop = old === -1 ? this.at.length : old;
    if (drop > 0) {
      this.at.splice(0, drop);
      for (const values of Object.values(this.series)) values.splice(0, drop);
    }
  }

  /** The newest value of a series; null: not known. */
  last(name) {
    return this.series[name]?.at(-1) ?? null;
  }
}
