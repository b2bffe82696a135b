// Drawing in SVG, in the pixels of the page, so that no text is stretched.

const NAMESPACE = "http://www.w3.org/2000/svg";

/** An element with these attributes and this text. */
export function shape(name, attributes = {}, text = "") {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [attribute, value] of Object.entries(attributes)) element.setAttribute(attribute, value);
  if (text) element.textContent = text;
  return element;
}

/** A drawing of that size; `label` is what a screen reader says of it. */
export function drawing(width, height, label, shapes) {
  const attributes = { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label };
  const element = shape("svg", attributes);
  element.append(...shapes);
  return element;
}

/** An arc around a point that shows a share of 0 to 1, clockwise from the top. */
export function arc(x, y, radius, share, kind) {
  const around = 2 * Math.PI * radius;
  return shape("circle", {
    class: kind,
    cx: x,
    cy: y,
    r: radius,
    "stroke-dasharray": `${(around * Math.min(1, Math.max(0, share))).toFixed(2)} ${around.toFixed(2)}`,
    transform: `rotate(-90 ${x} ${y})`,
  });
}
