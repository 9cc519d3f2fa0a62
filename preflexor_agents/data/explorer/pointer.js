// Mouse, touch and keys on the canvas: drag the picture or a node, zoom, click.
function listen(canvas, view, state, actions) {
  const pointers = new Map();
  let drag = null;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 0) return;
    const [x, y] = at(event);
    pointers.set(event.pointerId, [x, y]);
    canvas.setPointerCapture(event.pointerId);
    drag = pointers.size === 1 ? { x, y, node: view.nodeAt(x, y), far: false } : null;
  });

  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = at(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      actions.hover(view.nodeAt(x, y));
      return;
    }
    if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
      const spread = Math.hypot(x - other[0], y - other[1]) / (Math.hypot(before[0] - other[0], before[1] - other[1]) || 1);
      view.zoomAt((x + other[0]) / 2, (y + other[1]) / 2, spread);
    } else if (drag) {
      drag.far = drag.far || Math.hypot(x - drag.x, y - drag.y) > 4;
      if (drag.far && drag.node >= 0) actions.hold(drag.node, ...view.world(x, y));
      else if (drag.far) view.pan(x - before[0], y - before[1]);
      canvas.classList.toggle("moving", drag.far);
    }
    pointers.set(event.pointerId, [x, y]);
  });

  const release = (event) => {
    const [x, y] = at(event);
    pointers.delete(event.pointerId);
    canvas.classList.remove("moving");
    if (drag && drag.far && drag.node >= 0) actions.hold(-1, 0, 0);
    if (event.type === "pointerup" && drag && !drag.far) actions.click(drag.node, drag.node < 0 ? view.edgeAt(x, y) : -1, event.shiftKey);
    drag = null;
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => actions.hover(-1));
  canvas.addEventListener("dblclick", (event) => view.zoomAt(...at(event), 1.8));
  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      view.zoomAt(...at(event), Math.exp(-Math.max(-120, Math.min(120, event.deltaY * lines)) / 400));
    },
    { passive: false },
  );

  const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const middle = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    if (moves[event.key]) view.pan(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") view.zoomAt(...middle, 1.3);
    else if (event.key === "-") view.zoomAt(...middle, 1 / 1.3);
    else if (event.key === "0") view.fit();
    else return;
    event.preventDefault();
  });
}
