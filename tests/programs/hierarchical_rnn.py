'''A hierarchical RNN: rows of an image are encoded, then columns of encoded rows.'''
import keras
from keras.models import Model
from keras.layers import Input, Dense, TimeDistributed
from keras.layers.recurrent import LSTM, GRU
from keras.layers.embeddings import Embedding
import numpy as np

rng = np.random.RandomState(0)
x_train = rng.rand(64, 6, 5, 1).astype('float32')
y_train = keras.utils.to_categorical((x_train[:, :3].mean((1, 2, 3)) > 0.5).astype(int), 2)

row, col, pixel = x_train.shape[1:]
x = Input(shape=(row, col, pixel))
encoded_rows = TimeDistributed(LSTM(8))(x)       # encodes a row of pixels
encoded_columns = LSTM(8)(encoded_rows)          # encodes columns of encoded rows
prediction = Dense(2, activation='softmax')(encoded_columns)
model = Model(x, prediction)
model.compile(loss='categorical_crossentropy', optimizer='rmsprop', metrics=['accuracy'])
model.fit(x_train, y_train, batch_size=16, epochs=2, verbose=0)
assert len(model.evaluate(x_train, y_train, verbose=0)) == 2

# Documents of sentences of words, zeros behind: a document with more padding is the same.
words = Input(shape=(None,), dtype='int32')
sentence = Model(words, GRU(8)(Embedding(20, 8, mask_zero=True)(words)))
document = Input(shape=(None, None), dtype='int32')
encoded = GRU(8)(TimeDistributed(sentence)(document))
classifier = Model(document, Dense(1, activation='sigmoid')(encoded))
text = rng.randint(1, 20, (2, 3, 4))
padded = np.zeros((2, 5, 7), 'int32')
padded[:, :3, :4] = text
assert np.allclose(classifier.predict(text), classifier.predict(padded), atol=1e-6)
