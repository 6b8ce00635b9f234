"""app.py of a Space: the page of `memplan ui`. requirements.txt names memplan[ui]."""

from memplan.faces.ui.form import form

if __name__ == "__main__":
    form(bundled_only=True).launch()
