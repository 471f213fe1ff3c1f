"""The real instrumentations against stubs of the model APIs: what comes out is what the APIs charged."""
