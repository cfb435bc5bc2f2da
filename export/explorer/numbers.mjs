// Numbers as people read them.

/** Two decimals, a minus sign in place of a hyphen, and no minus before zero. */
export function decimals(value) {
  const text = value.toFixed(2);
  return text === "-0.00" ? "0.00" : text.replace("-", "−");
}
