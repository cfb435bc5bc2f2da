// The state of the page. Views are told of each change and never change it themselves.

/** @returns get(), subscribe(view) with view(state), update(changes) */
export function createStore(initial) {
  let state = initial;
  const views = [];

  function subscribe(view) {
    views.push(view);
    view(state);
  }

  function update(changes) {
    state = { ...state, ...changes };
    for (const view of views) {
      view(state);
    }
  }

  return { get: () => state, subscribe, update };
}
