'''A stateful RNN that models long sequences by parts: states go on from batch to batch.'''
from __future__ import print_function
import numpy as np
from keras.models import Sequential
from keras.layers import Dense, LSTM

tsteps = 1
batch_size = 8
epochs = 3
lahead = 1

cos = np.cos(2 * np.pi * np.arange(64) / 16)[:, None, None] * np.exp(-0.01 * np.arange(64))[:, None, None]
expected_output = np.roll(cos[:, 0], -lahead)

print('Creating Model...')
model = Sequential()
model.add(LSTM(10,
               input_shape=(tsteps, 1),
               batch_size=batch_size,
               return_sequences=True,
               stateful=True))
model.add(LSTM(10, return_sequences=False, stateful=True))
model.add(Dense(1))
model.compile(loss='mse', optimizer='rmsprop')

losses = []
for i in range(epochs):
    history = model.fit(cos, expected_output, batch_size=batch_size, epochs=1, verbose=0,
                        shuffle=False)
    losses.append(history.history['loss'][0])
    model.reset_states()
assert losses[-1] < losses[0], losses

first = model.predict(cos[:8], batch_size=batch_size)
second = model.predict(cos[:8], batch_size=batch_size)
model.reset_states()
again = model.predict(cos[:8], batch_size=batch_size)
assert (first != second).any() and np.allclose(first, again, atol=1e-6)
