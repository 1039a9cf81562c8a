// Quantities as people read them, as the `emberfs` command writes them: powers of 1024 for bytes, three digits.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  let value = count;
  let power = 0;
  while (value >= 1024 && power < UNITS.length - 1) {
    value /= 1024;
    power += 1;
  }
  if (power === 0) return `${Math.round(value)} B`;
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}`;
}

export function bytesPerSecond(count) {
  return count === null || count === undefined ? "–" : `${bytes(count)}/s`;
}

export function count(value) {
  return value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");
}

/** 0.4, 12, 1,234, 56k, 7.8M. */
export function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${digits(value / 1e9)}G`;
  if (size >= 1e6) return `${digits(value / 1e6)}M`;
  if (size >= 1e4) return `${digits(value / 1e3)}k`;
  if (size >= 100) return count(value);
  return size === 0 ? "0" : size < 0.095 ? "<0.1" : digits(value);
}

function digits(value) {
  return Math.abs(value) < 9.95 && !Number.isInteger(value) ? value.toFixed(1) : String(Math.round(value));
}

export function perSecond(value) {
  return value === null || value === undefined ? "–" : `${short(value)}/s`;
}

export function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 1000) return `${digits(value / 1000)} s`;
  return value < 0.1 ? `${Math.round(value * 1000)} µs` : `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 1) return "under 1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  const hours = Math.floor(seconds / 3600);
  if (hours < 48) return `${hours} h ${Math.round((seconds % 3600) / 60)} min`;
  return `${Math.round(hours / 24)} days`;
}

export function counted(number, singular, plural) {
  return `${count(number)} ${number === 1 ? singular : (plural ?? `${singular}s`)}`;
}

export function percent(part, whole) {
  return whole > 0 ? Math.min(100, Math.max(0, (100 * part) / whole)) : 0;
}

export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
}

export function clockMinutes(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

export function dateTime(date) {
  return date.toLocaleString([], { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
}

/**
 * A name as it may be shown: what cannot be seen, or would turn the letters around it, is shown by its number.
 * Bytes that are no text come as lone surrogates.
 */
export function visible(name) {
  let shown = "";
  for (const letter of name) {
    const code = letter.codePointAt(0);
    if (code >= 0xdc80 && code <= 0xdcff) shown += `\\x${(code - 0xdc00).toString(16)}`;
    else if (code >= 0xd800 && code <= 0xdfff) shown += "\ufffd";
    else if (code < 0x20) shown += String.fromCodePoint(0x2400 + code);
    else if (code === 0x7f) shown += "\u2421";
    else if (/^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]$/u.test(letter)) shown += `\\u{${code.toString(16)}}`;
    else shown += letter;
  }
  return shown;
}
