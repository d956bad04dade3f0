'''Trains an LSTM on a sentiment task, as on the IMDB movie reviews.'''
from __future__ import print_function
import numpy as np
np.random.seed(1337)  # for reproducibility

from keras.preprocessing import sequence
from keras.utils import np_utils
from keras.models import Sequential
from keras.layers.core import Dense, Dropout, Activation
from keras.layers.embeddings import Embedding
from keras.layers.recurrent import LSTM
from keras.optimizers import Adam

max_features = 50
maxlen = 12
batch_size = 16

rng = np.random.RandomState(0)
X_train = [list(rng.randint(1, max_features, size=rng.randint(3, 15))) for _ in range(96)]
y_train = np.array([int(np.mean(s) > 25) for s in X_train])
X_test, y_test = X_train[:32], y_train[:32]

print('Pad sequences (samples x time)')
X_train = sequence.pad_sequences(X_train, maxlen=maxlen)
X_test = sequence.pad_sequences(X_test, maxlen=maxlen)

print('Build model...')
model = Sequential()
model.add(Embedding(max_features, 16, input_length=maxlen, mask_zero=True))
model.add(LSTM(16, dropout_W=0.2, dropout_U=0.2))  # try using a GRU instead, for fun
model.add(Dense(1, init='uniform'))
model.add(Activation('sigmoid'))

model.compile(loss='binary_crossentropy',
              optimizer=Adam(lr=0.05, decay=1e-3),
              metrics=['accuracy'])

history = model.fit(X_train, y_train, batch_size=batch_size, nb_epoch=6,
                    validation_data=(X_test, y_test), verbose=2)
score, acc = model.evaluate(X_test, y_test, batch_size=batch_size)
print('Test score:', score)
print('Test accuracy:', acc)
classes = model.predict_classes(X_test, batch_size=batch_size)
proba = model.predict_proba(X_test, batch_size=batch_size)
assert ((proba > 0.5) == classes).all()
assert acc > 0.7, acc
assert 'val_acc' in history.history or 'val_accuracy' in history.history
