"""A page in the browser and a JSON API around one model, by Gradio and FastAPI.

=============  ================================================================
``app``        the server: page, API, and how they are started
``page``       what a browser shows
``predictor``  one model behind many requests
``limits``     what is refused before it is read
``space``      a folder that Hugging Face Spaces runs, and examples for the page
=============  ================================================================
"""
