// A form that runs something: when it is submitted and when a field changes, one run after another, with what is wrong shown beside the
// field that is wrong.

/**
 * Calls `run` with the form's data. What it throws as an array of refusals goes to the fields; `fail` is told everything else, and how
 * many fields were refused.
 */
export function onRun(form, { run, fail, onChange }) {
  let running = false;
  let again = false;
  /** Whether the first field that is refused gets the focus: where someone has asked for a run, and not just left a field. */
  let takesFocus = false;

  async function go(focus) {
    takesFocus = focus;
    if (running) {
      again = true;
      return;
    }
    running = true;
    do {
      again = false;
      try {
        await run(new FormData(form));
        show(form, []);
      } catch (error) {
        const refusals = Array.isArray(error) ? error : [{ field: "", message: error.message ?? String(error) }];
        const first = show(form, refusals);
        if (takesFocus) first?.focus();
        const others = refusals.filter(({ field }) => !fieldOf(form, field)).map(({ message }) => message);
        fail(others.join(" "), refusals.length - others.length);
      }
    } while (again);
    running = false;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    go(true);
  });
  form.addEventListener("change", () => {
    showWhatIsMeant(form);
    if (onChange !== false) go(false);
  });
  showWhatIsMeant(form);
  return () => go(false);
}

/** Sets fields by name, all others as they were at first. */
export function fill(form, parameters) {
  form.reset();
  for (const box of form.querySelectorAll("[type=checkbox]")) box.checked = parameters.has(box.name) || box.defaultChecked;
  for (const [name, value] of parameters) {
    const field = fieldOf(form, name);
    if (field && field.type !== "checkbox") field.value = value;
  }
  showWhatIsMeant(form);
}

function fieldOf(form, name) {
  return name && form.querySelector(`[name="${CSS.escape(name)}"]`);
}

/** Shows messages beside their fields and takes all others away. Returns the first field that has one. */
function show(form, refusals) {
  let first;
  for (const field of form.querySelectorAll("[name]")) {
    const refusal = refusals.find(({ field: name }) => name === field.name);
    const place = document.getElementById(`${form.id}-${field.name}-error`);
    place.textContent = refusal?.message ?? "";
    if (refusal) {
      field.setAttribute("aria-invalid", "true");
      first ??= field;
    } else {
      field.removeAttribute("aria-invalid");
    }
  }
  return first;
}

/** Shows what depends on a choice (`data-if="name=value,value"`) where it is made. */
function showWhatIsMeant(form) {
  for (const part of form.querySelectorAll("[data-if]")) {
    const [name, values] = part.dataset.if.split("=");
    part.hidden = !values.split(",").includes(fieldOf(form, name).value);
  }
}
