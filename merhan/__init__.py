"""The workshop of MER-HAN: all that training needs and a loaded model does not."""
