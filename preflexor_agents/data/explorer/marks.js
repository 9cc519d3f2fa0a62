// Groups of entities are told apart by colour and shape together: twenty-four pairs, then a plain grey circle.
const HUES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8f7a00", "#56b4e9", "#7b5bb5", "#8c564b"];
const SHAPES = ["circle", "square", "triangle", "diamond", "hexagon", "cross"];
const OTHER = { colour: "#8b8f96", shape: "circle" };

function markOf(place) {
  if (place < 0 || place >= HUES.length * 3) return OTHER;
  return { colour: HUES[place % HUES.length], shape: SHAPES[(place + Math.floor(place / HUES.length)) % SHAPES.length] };
}

function trace(pen, shape, x, y, r) {
  if (shape === "circle") {
    pen.moveTo(x + r, y);
    pen.arc(x, y, r, 0, 2 * Math.PI);
    return;
  }
  if (shape === "square") {
    pen.rect(x - 0.89 * r, y - 0.89 * r, 1.78 * r, 1.78 * r);
    return;
  }
  const corners = OUTLINES[shape];
  pen.moveTo(x + r * corners[0][0], y + r * corners[0][1]);
  for (const [dx, dy] of corners.slice(1)) pen.lineTo(x + r * dx, y + r * dy);
  pen.closePath();
}

const OUTLINES = {
  triangle: [[0, -1.25], [1.1, 0.75], [-1.1, 0.75]],
  diamond: [[0, -1.25], [1.25, 0], [0, 1.25], [-1.25, 0]],
  hexagon: [0, 1, 2, 3, 4, 5].map((k) => [1.1 * Math.cos((k * Math.PI) / 3), 1.1 * Math.sin((k * Math.PI) / 3)]),
  cross: [
    [-0.4, -1.15], [0.4, -1.15], [0.4, -0.4], [1.15, -0.4], [1.15, 0.4], [0.4, 0.4],
    [0.4, 1.15], [-0.4, 1.15], [-0.4, 0.4], [-1.15, 0.4], [-1.15, -0.4], [-0.4, -0.4],
  ],
};

// Gives each entity its group by type or by community; returns the groups, largest first.
function group(graph, by) {
  const keyOf = (node) => (by === "community" ? node.community : node.type);
  const sizes = new Map();
  for (const node of graph.nodes) sizes.set(keyOf(node), (sizes.get(keyOf(node)) || 0) + 1);
  const keys = [...sizes.keys()].sort((a, b) => sizes.get(b) - sizes.get(a) || a - b);
  const places = new Map(keys.map((key, place) => [key, key < 0 ? -1 : place]));
  for (const node of graph.nodes) node.mark = markOf(places.get(keyOf(node)));
  return keys.map((key) => ({ key, size: sizes.get(key), mark: markOf(places.get(key)) }));
}
