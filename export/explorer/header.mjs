// What is open: the run's name, and what was measured of it.

export function showHeader(page, { source, class_names: classNames, metrics, weights }) {
  page.title = `${source.run} · vaekit explorer`;
  page.querySelector("#run").textContent = source.run;
  const facts = [
    ["test loss", metrics.test_loss?.toFixed(2)],
    ["SVM accuracy", metrics.svm_accuracy?.toFixed(4)],
    ["classes", classNames.length || undefined],
    ["weights", weights],
  ];
  page.querySelector("#facts").replaceChildren(
    ...facts.filter(([, value]) => value !== undefined).map(([name, value]) => fact(name, value)),
  );
}

function fact(name, value) {
  const group = document.createElement("div");
  const [term, description] = [document.createElement("dt"), document.createElement("dd")];
  term.textContent = name;
  description.textContent = value;
  group.append(term, description);
  return group;
}
