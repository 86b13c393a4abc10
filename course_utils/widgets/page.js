// What ipywidgets leaves out, done in the page: the `onload` of a style element within the panel, as often as it is shown.
const panel = this.closest(".course-panel");
function name() {      // a slider's handle has no name; its label has one, and a word of help
    for (const slider of panel.querySelectorAll(".widget-slider")) {
        const label = slider.querySelector("label"), handle = slider.querySelector(".noUi-handle");
        handle?.setAttribute("aria-label", label.textContent);
        handle?.setAttribute("aria-description", label.title);
    }
}
name();      // and again, since controls come one by one
(panel.named ??= new MutationObserver(name)).observe(panel, {childList: true, subtree: true});
panel.onclick = ({target, offsetX, offsetY}) => {      // a click on the picture fills in the control `position`
    const field = panel.querySelector(".course-position input");
    if (field && target.matches(".course-picture")) {
        field.value = `${(offsetX / target.clientWidth).toFixed(3)} ${(offsetY / target.clientHeight).toFixed(3)}`;
        field.dispatchEvent(new Event("change", {bubbles: true}));
    }
};
