// Draws the graph on a canvas, and tells what is under a point. Knows places and marks, nothing of the panel.
function makeView(canvas, graph, state) {
  const pen = canvas.getContext("2d");
  const camera = { x: 0, y: 0, zoom: 1, follows: true };
  const size = { width: 1, height: 1 };
  const places = new Float32Array(2 * graph.nodes.length);
  const radii = graph.nodes.map((node) => 3.2 + 1.5 * Math.sqrt(Math.min(node.edges.length, 120)));
  const widths = new Map();
  let colours = {};
  let waiting = false;

  function readColours() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "ink", "dim", "edge", "accent", "fresh", "halo"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    refresh();
  }

  function resize() {
    const box = canvas.parentElement.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    [size.width, size.height] = [Math.max(box.width, 1), Math.max(box.height, 1)];
    [canvas.width, canvas.height] = [Math.round(size.width * ratio), Math.round(size.height * ratio)];
    if (camera.follows) fit();
    refresh();
  }

  function refresh() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  const screenX = (id) => (places[2 * id] - camera.x) * camera.zoom + size.width / 2;
  const screenY = (id) => (places[2 * id + 1] - camera.y) * camera.zoom + size.height / 2;
  const radius = (id) => radii[id] * Math.max(0.35, Math.min(1.6, Math.sqrt(camera.zoom)));
  const world = (x, y) => [(x - size.width / 2) / camera.zoom + camera.x, (y - size.height / 2) / camera.zoom + camera.y];

  // Shows the nodes in a list, or all visible ones; of many, a few far away do not make the rest small.
  function fit(ids) {
    const shown = ids || [...graph.nodes.keys()].filter((id) => state.shown.nodes[id]);
    if (!shown.length) return;
    const far = shown.length > 400 ? Math.floor(shown.length * 0.004) : 0;
    const span = (axis) => {
      const sorted = Float32Array.from(shown, (id) => places[2 * id + axis]).sort();
      return [sorted[far], sorted[sorted.length - 1 - far]];
    };
    const [[left, right], [top, bottom]] = [span(0), span(1)];
    [camera.x, camera.y] = [(left + right) / 2, (top + bottom) / 2];
    const room = Math.min((size.width - 90) / (right - left + 1), (size.height - 70) / (bottom - top + 1));
    camera.zoom = Math.max(0.02, Math.min(ids ? 1.6 : 2.5, room));
    camera.follows = !ids;
    refresh();
  }

  function zoomAt(x, y, factor) {
    const [wx, wy] = world(x, y);
    camera.zoom = Math.max(0.02, Math.min(8, camera.zoom * factor));
    [camera.x, camera.y] = [wx - (x - size.width / 2) / camera.zoom, wy - (y - size.height / 2) / camera.zoom];
    camera.follows = false;
    refresh();
  }

  function pan(dx, dy) {
    camera.x -= dx / camera.zoom;
    camera.y -= dy / camera.zoom;
    camera.follows = false;
    refresh();
  }

  function moveTo(id) {
    [camera.x, camera.y] = [places[2 * id], places[2 * id + 1]];
    camera.zoom = Math.max(camera.zoom, 0.9);
    camera.follows = false;
    refresh();
  }

  // The nodes and edges that stand out, or null if none do.
  function chosen() {
    if (state.path) return { nodes: new Set(state.path.nodes), edges: new Set(state.path.edges) };
    if (state.edge >= 0) {
      const edge = graph.edges[state.edge];
      return { nodes: new Set([edge.source, edge.target]), edges: new Set([edge.id]) };
    }
    const centre = state.selected;
    if (centre < 0) return null;
    const edges = graph.nodes[centre].edges.filter((edge) => state.shown.edges[edge.id]);
    return { nodes: new Set([centre, ...edges.flatMap((e) => [e.source, e.target])]), edges: new Set(edges.map((e) => e.id)) };
  }

  // The point that an edge bends towards, in pixels of the screen.
  function bendPoint(edge) {
    const [x1, y1, x2, y2] = [screenX(edge.source), screenY(edge.source), screenX(edge.target), screenY(edge.target)];
    const length = Math.hypot(x2 - x1, y2 - y1) || 1;
    const away = edge.bend * Math.min(44, 0.3 * length);
    return [(x1 + x2) / 2 - ((y2 - y1) / length) * away, (y1 + y2) / 2 + ((x2 - x1) / length) * away];
  }

  function line(edge) {
    const [x, y] = [screenX(edge.source), screenY(edge.source)];
    if (edge.source === edge.target) {
      const r = radius(edge.source) + 4 * edge.bend;
      pen.moveTo(x + r, y - r);
      pen.arc(x, y - r, r, 0, 2 * Math.PI);
      return;
    }
    pen.moveTo(x, y);
    if (!edge.bend) pen.lineTo(screenX(edge.target), screenY(edge.target));
    else pen.quadraticCurveTo(...bendPoint(edge), screenX(edge.target), screenY(edge.target));
  }

  function offScreen(edge) {
    const [x1, y1, x2, y2] = [screenX(edge.source), screenY(edge.source), screenX(edge.target), screenY(edge.target)];
    return (
      Math.max(x1, x2) < -40 || Math.min(x1, x2) > size.width + 40 || Math.max(y1, y2) < -40 || Math.min(y1, y2) > size.height + 40
    );
  }

  function stroke(edges, colour, alpha, thickness) {
    pen.strokeStyle = colour;
    pen.globalAlpha = alpha;
    pen.lineWidth = thickness;
    pen.beginPath();
    edges.forEach(line);
    pen.stroke();
    pen.globalAlpha = 1;
  }

  function arrows(edges, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    for (const edge of edges) {
      if (edge.source === edge.target) continue;
      const [fx, fy] = edge.bend ? bendPoint(edge) : [screenX(edge.source), screenY(edge.source)];
      const [x, y] = [screenX(edge.target), screenY(edge.target)];
      const length = Math.hypot(x - fx, y - fy) || 1;
      const [ux, uy] = [(x - fx) / length, (y - fy) / length];
      const gap = radius(edge.target) + 2;
      const [tx, ty] = [x - ux * gap, y - uy * gap];
      pen.moveTo(tx, ty);
      pen.lineTo(tx - 8 * ux - 4 * uy, ty - 8 * uy + 4 * ux);
      pen.lineTo(tx - 8 * ux + 4 * uy, ty - 8 * uy - 4 * ux);
      pen.closePath();
    }
    pen.fill();
  }

  function drawEdges(focus) {
    const shown = graph.edges.filter((edge) => state.shown.edges[edge.id] && !offScreen(edge));
    const isFresh = (edge) => state.time < graph.started.length - 1 && edge.time === state.time && state.time > 0;
    const near = focus ? shown.filter((edge) => focus.edges.has(edge.id)) : [];
    const rest = focus ? shown.filter((edge) => !focus.edges.has(edge.id)) : shown;
    const alpha = shown.length > 4000 ? 0.22 : shown.length > 600 ? 0.4 : 0.65;
    stroke(rest, colours.edge, focus ? Math.min(alpha, 0.12) : alpha, 1);
    const fresh = rest.filter(isFresh);
    if (!focus && fresh.length) stroke(fresh, colours.fresh, 0.9, 1.6);
    if (!focus && camera.zoom > 0.7 && rest.length < 1500) arrows(rest, colours.edge);
    if (near.length) {
      stroke(near, colours.accent, 0.95, state.path || state.edge >= 0 ? 2.6 : 1.6);
      arrows(near, colours.accent);
    }
    return near;
  }

  function drawNodes(focus) {
    const groups = new Map();
    for (const node of graph.nodes) {
      const [x, y, r] = [screenX(node.id), screenY(node.id), radius(node.id)];
      if (!state.shown.nodes[node.id] || x < -r || x > size.width + r || y < -r || y > size.height + r) continue;
      const faint = focus && !focus.nodes.has(node.id);
      const key = `${node.mark.colour} ${node.mark.shape} ${faint ? 0.22 : 1}`;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push([x, y, r]);
    }
    pen.strokeStyle = colours.halo;
    pen.lineWidth = 1;
    for (const [key, all] of [...groups].sort((a, b) => (a[0].endsWith(" 1") ? 1 : 0) - (b[0].endsWith(" 1") ? 1 : 0))) {
      const [colour, shape, alpha] = key.split(" ");
      pen.fillStyle = colour;
      pen.globalAlpha = Number(alpha);
      pen.beginPath();
      for (const [x, y, r] of all) trace(pen, shape, x, y, r);
      pen.fill();
      if (alpha === "1" && camera.zoom > 0.5) pen.stroke();
    }
    pen.globalAlpha = 1;
    for (const [id, colour] of [[state.hover, colours.ink], [state.selected, colours.accent]]) {
      if (id < 0 || !state.shown.nodes[id]) continue;
      pen.strokeStyle = colour;
      pen.lineWidth = 2.5;
      pen.beginPath();
      trace(pen, graph.nodes[id].mark.shape, screenX(id), screenY(id), radius(id) + 3.5);
      pen.stroke();
    }
  }

  function write(text, x, y, colour) {
    pen.lineWidth = 3.5;
    pen.strokeStyle = colours.halo;
    pen.strokeText(text, x, y);
    pen.fillStyle = colour;
    pen.fillText(text, x, y);
  }

  function widthOf(text) {
    if (!widths.has(text)) widths.set(text, pen.measureText(text).width);
    return widths.get(text);
  }

  // The cells of a grid that a line of text covers.
  function cellsOf(text, x, y) {
    const half = widthOf(text) / 2;
    const cells = [];
    for (let cx = Math.floor((x - half) / 24); cx <= (x + half) / 24; cx += 1) {
      for (let cy = Math.floor(y / 7); cy <= (y + 14) / 7; cy += 1) cells.push(`${cx} ${cy}`);
    }
    return cells;
  }

  // Names, the best connected first, where there is room; those that stand out first of all. Returns the room taken.
  function drawNames(focus) {
    pen.font = "12px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.textBaseline = "top";
    pen.lineJoin = "round";
    const taken = new Set();
    const first = [state.selected, state.hover, ...(state.path ? state.path.nodes : [])].filter((id) => id >= 0);
    const wanted = [...new Set([...first, ...(focus ? focus.nodes : [])])].map((id) => graph.nodes[id]);
    const most = 60 + size.width / 12;
    let drawn = 0;
    for (const node of [...wanted, ...(focus ? [] : graph.ranked)]) {
      if (drawn > most) break;
      if (!state.shown.nodes[node.id]) continue;
      const [x, y, r] = [screenX(node.id), screenY(node.id), radius(node.id)];
      if (x < 0 || x > size.width || y < 0 || y > size.height) continue;
      const must = first.includes(node.id);
      if (!must && r < 3.4 && !focus) break;
      const text = node.name.length > 34 ? `${node.name.slice(0, 33)}…` : node.name;
      const cells = cellsOf(text, x, y + r);
      if (!must && cells.some((cell) => taken.has(cell))) continue;
      cells.forEach((cell) => taken.add(cell));
      write(text, x, y + r + 2, must ? colours.accent : colours.ink);
      drawn += 1;
    }
    return taken;
  }

  function drawKinds(edges, taken) {
    if (edges.length > 60) return;
    pen.font = "italic 11px system-ui, sans-serif";
    for (const edge of edges) {
      const [bx, by] = bendPoint(edge);
      const [x, y] = [(screenX(edge.source) + screenX(edge.target) + 2 * bx) / 4, (screenY(edge.source) + screenY(edge.target) + 2 * by) / 4];
      const text = graph.kinds[edge.kind].slice(0, 40);
      const cells = cellsOf(text, x, y - 7);
      if (cells.some((cell) => taken.has(cell))) continue;
      cells.forEach((cell) => taken.add(cell));
      write(text, x, y - 6, colours.dim);
    }
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.fillStyle = colours.paper;
    pen.fillRect(0, 0, size.width, size.height);
    const focus = chosen();
    const near = drawEdges(focus);
    drawNodes(focus);
    drawKinds(near, drawNames(focus));
  }

  function nodeAt(x, y) {
    let [best, nearest] = [-1, Infinity];
    for (const node of graph.nodes) {
      if (!state.shown.nodes[node.id]) continue;
      const away = Math.hypot(screenX(node.id) - x, screenY(node.id) - y) - radius(node.id);
      if (away < 4 && away < nearest) [best, nearest] = [node.id, away];
    }
    return best;
  }

  function edgeAt(x, y) {
    let [best, nearest] = [-1, 6];
    for (const edge of graph.edges) {
      if (!state.shown.edges[edge.id] || offScreen(edge)) continue;
      const away = distance(edge, x, y);
      if (away < nearest) [best, nearest] = [edge.id, away];
    }
    return best;
  }

  function distance(edge, x, y) {
    if (edge.source === edge.target) {
      const r = radius(edge.source) + 4 * edge.bend;
      return Math.abs(Math.hypot(screenX(edge.source) - x, screenY(edge.source) - r - y) - r);
    }
    const ends = [[screenX(edge.source), screenY(edge.source)], [screenX(edge.target), screenY(edge.target)]];
    if (!edge.bend) return toSegment(...ends[0], ...ends[1], x, y);
    const [bx, by] = bendPoint(edge);
    let [least, px, py] = [Infinity, ...ends[0]];
    for (let t = 0.125; t <= 1; t += 0.125) {
      const [a, b, c] = [(1 - t) * (1 - t), 2 * t * (1 - t), t * t];
      const [qx, qy] = [a * ends[0][0] + b * bx + c * ends[1][0], a * ends[0][1] + b * by + c * ends[1][1]];
      least = Math.min(least, toSegment(px, py, qx, qy, x, y));
      [px, py] = [qx, qy];
    }
    return least;
  }

  function toSegment(x1, y1, x2, y2, x, y) {
    const square = (x2 - x1) ** 2 + (y2 - y1) ** 2 || 1;
    const along = Math.max(0, Math.min(1, ((x - x1) * (x2 - x1) + (y - y1) * (y2 - y1)) / square));
    return Math.hypot(x1 + along * (x2 - x1) - x, y1 + along * (y2 - y1) - y);
  }

  function take(fresh) {
    places.set(fresh);
    if (camera.follows) fit();
    refresh();
  }

  return { camera, fit, zoomAt, pan, moveTo, world, nodeAt, edgeAt, take, refresh, resize, readColours };
}
