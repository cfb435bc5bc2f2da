// What the SVM says of an image: the label, whether it is right, and the score of each class.

import { decimals } from "./numbers.mjs";

const MAX_ROWS = 10; // with more classes, those with the highest scores
const LONG_NAME = 3; // letters beyond which a name is set smaller

/** @returns view(state); `manifest` tells class_names and score_labels */
export function createVerdict(root, manifest) {
  const { class_names: classNames, score_labels: scoreLabels } = manifest;
  const name = root.querySelector(".name");
  const truth = root.querySelector(".truth");
  const body = root.querySelector("tbody");
  const rows = Array.from({ length: Math.min(scoreLabels.length, MAX_ROWS) }, () => newRow(body));

  return ({ verdict, trueLabel }) => {
    const known = verdict !== null && verdict.label >= 0; // -1: the latent was not finite
    name.value = known ? classNames[verdict.label] : "–";
    name.classList.toggle("long", name.value.length > LONG_NAME);
    const judged = known && trueLabel !== null;
    truth.textContent = trueLabel === null ? "" : `true label ${classNames[trueLabel]}`;
    truth.classList.toggle("right", judged && trueLabel === verdict.label);
    truth.classList.toggle("wrong", judged && trueLabel !== verdict.label);
    const scores = known ? verdict.scores : null;
    shownColumns(scores).forEach((column, index) => {
      const label = scoreLabels[column];
      showRow(rows[index], classNames[label], scores?.[column], known && label === verdict.label);
    });
  };

  function shownColumns(scores) {
    const columns = Array.from(scoreLabels.keys());
    if (columns.length > MAX_ROWS && scores !== null) {
      columns.sort((a, b) => scores[b] - scores[a]);
    }
    return columns.slice(0, MAX_ROWS);
  }

  /** Scores are votes, 0 to K - 1, and less than a third of one more or less. */
  function showRow({ row, header, bar, value }, className, score, isLabel) {
    const share = (score + 1 / 3) / (scoreLabels.length - 1 / 3);
    header.textContent = className;
    bar.style.width = score === undefined ? 0 : `${100 * share}%`;
    value.textContent = score === undefined ? "" : decimals(score);
    row.classList.toggle("chosen", isLabel);
  }
}

function newRow(body) {
  const row = body.insertRow();
  const header = document.createElement("th");
  header.scope = "row";
  row.append(header);
  const bar = document.createElement("span");
  bar.className = "bar";
  row.insertCell().append(bar);
  return { row, header, bar, value: row.insertCell() };
}
