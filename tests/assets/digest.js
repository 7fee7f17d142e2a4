// The digest of a plan by PLAN_FORMAT.md alone. node digest.js PLAN...: prints each digest, and writes PLAN.js, the plan as JavaScript writes it.
const fs = require("fs"), crypto = require("crypto");
const COUNTS = ["version", "nfe", "network_calls", "samples", "seed", "patch"];

function float(x) {  // shortest digits; a point from 1e-4 up to below 1e16, else an exponent of two digits at least
  if (x === 0) return "0.0";
  const [mantissa, exponent] = x.toExponential().split("e");
  if (Math.abs(x) >= 1e-4 && Math.abs(x) < 1e16) {
    const text = Math.abs(x) < 1e-6 ? x.toFixed(20) : String(x);
    return text.includes(".") ? text : text + ".0";
  }
  return mantissa + "e" + exponent[0] + exponent.slice(1).padStart(2, "0");
}

function spelled(value, key, free) {
  if (Array.isArray(value)) return "[" + value.map((each) => spelled(each, key, free)).join(",") + "]";
  if (value !== null && typeof value === "object") {
    const points = (text) => Array.from(text, (c) => c.codePointAt(0));
    const order = (a, b) => {
      const [p, q] = [points(a), points(b)];
      for (let i = 0; i < Math.min(p.length, q.length); i++) if (p[i] !== q[i]) return p[i] - q[i];
      return p.length - q.length;
    };
    return "{" + Object.keys(value).sort(order).map((name) => JSON.stringify(name) + ":" + spelled(value[name], name, free || name === "decisions")).join(",") + "}";
  }
  if (typeof value !== "number") return JSON.stringify(value);
  const whole = (free || COUNTS.includes(key)) && Number.isInteger(value) && Math.abs(value) <= 2 ** 53;
  return whole ? String(value + 0) : float(value);
}

for (const file of process.argv.slice(2)) {
  const plan = JSON.parse(fs.readFileSync(file, "utf8"));
  fs.writeFileSync(file + ".js", JSON.stringify(plan));
  const { digest, ...content } = plan;
  console.log("sha256:" + crypto.createHash("sha256").update(spelled(content, "", false), "utf8").digest("hex"));
}
