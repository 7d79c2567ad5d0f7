// Numbers, times and names as text.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const one = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const two = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export const NONE = "–";

const missing = (value) => value === null || value === undefined || Number.isNaN(value);

export function count(value) {
  return missing(value) ? NONE : whole.format(value);
}

const plainly = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });

/** A number with as many digits as it needs. */
export function plain(value) {
  return missing(value) ? NONE : plainly.format(value);
}

/** A number with three digits or so: 0.12, 1.23, 12.3, 1,234. */
export function digits(value) {
  if (missing(value)) return NONE;
  if (value === 0) return "0";
  if (value > 0 && value < 0.005) return "< 0.01";
  if (value < 10) return two.format(value);
  return value < 100 ? one.format(value) : whole.format(value);
}

export function milliseconds(value) {
  return missing(value) ? NONE : `${digits(value)} ms`;
}

export function percent(share) {
  if (missing(share)) return NONE;
  const value = share * 100;
  if (value === 0 || value >= 10) return `${whole.format(value)} %`;
  return `${value < 0.1 ? two.format(value) : one.format(value)} %`;
}

export function bytes(value) {
  if (missing(value)) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(value) : digits(value)} ${units[unit]}`;
}

/** A duration in seconds as `8 s`, `3 min`, `2 h 5 min` or `4 d 3 h`. */
export function duration(seconds) {
  if (missing(seconds)) return NONE;
  const total = Math.max(0, Math.round(seconds));
  if (total < 120) return `${total} s`;
  const minutes = Math.floor(total / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return hours % 24 ? `${Math.floor(hours / 24)} d ${hours % 24} h` : `${Math.floor(hours / 24)} d`;
}

const pad = (value, length = 2) => String(value).padStart(length, "0");

/** The local time of day. */
export function clock(seconds, withMilliseconds = false) {
  if (missing(seconds)) return NONE;
  const date = new Date(seconds * 1000);
  const text = `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  return withMilliseconds ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

/** The local time, with the day unless that is today. */
export function moment(seconds) {
  if (missing(seconds)) return NONE;
  const date = new Date(seconds * 1000);
  if (date.toDateString() === new Date().toDateString()) return clock(seconds);
  const day = [date.getFullYear(), pad(date.getMonth() + 1), pad(date.getDate())].join("-");
  return `${day} ${clock(seconds)}`;
}

/** `1 error`, `2 errors`. */
export function plural(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

export function routeName(model, version) {
  return missing(version) || version === "" ? model : `${model}:${version}`;
}

/** A tensor as `x FP32[1,2]`. */
export function tensorType(tensor) {
  const shape = tensor.rank === "any" ? "..." : (tensor.shape ?? []).join(",");
  return `${tensor.datatype}[${shape}]`;
}
