"""The web page: a form for what `memplan recommend` is asked, and the report and the code. It needs gradio."""
