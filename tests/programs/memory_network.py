'''A memory network on a small question answering task (after Sukhbaatar et al.).'''
from keras.models import Sequential, Model
from keras.layers.embeddings import Embedding
from keras.layers import Input, Activation, Dense, Permute, Dropout
from keras.layers import add, dot, concatenate
from keras.layers import LSTM
import numpy as np

rng = np.random.RandomState(1)
story_maxlen, query_maxlen, vocab_size = 6, 2, 9

# The answer is the word that follows the word that is asked for.
inputs_train = rng.randint(3, vocab_size, (256, story_maxlen))
at = rng.randint(0, story_maxlen - 1, 256)
queries_train = np.stack([np.ones(256, int), inputs_train[np.arange(256), at]], 1)
answers_train = inputs_train[np.arange(256), at + 1]

# placeholders
input_sequence = Input((story_maxlen,))
question = Input((query_maxlen,))

# encoders: embed the input sequence into a sequence of vectors
input_encoder_m = Sequential()
input_encoder_m.add(Embedding(input_dim=vocab_size, output_dim=16))
input_encoder_m.add(Dropout(0.1))

input_encoder_c = Sequential()
input_encoder_c.add(Embedding(input_dim=vocab_size, output_dim=query_maxlen))
input_encoder_c.add(Dropout(0.1))

question_encoder = Sequential()
question_encoder.add(Embedding(input_dim=vocab_size, output_dim=16, input_length=query_maxlen))
question_encoder.add(Dropout(0.1))

input_encoded_m = input_encoder_m(input_sequence)
input_encoded_c = input_encoder_c(input_sequence)
question_encoded = question_encoder(question)

# compute a 'match' between the first input vector sequence and the question vector sequence
match = dot([input_encoded_m, question_encoded], axes=(2, 2))
match = Activation('softmax')(match)

# add the match matrix with the second input vector sequence
response = add([match, input_encoded_c])  # (samples, story_maxlen, query_maxlen)
response = Permute((2, 1))(response)      # (samples, query_maxlen, story_maxlen)

# concatenate the match matrix with the question vector sequence
answer = concatenate([response, question_encoded])
answer = LSTM(16)(answer)
answer = Dropout(0.1)(answer)
answer = Dense(vocab_size)(answer)
answer = Activation('softmax')(answer)

model = Model([input_sequence, question], answer)
model.compile(optimizer='rmsprop', loss='sparse_categorical_crossentropy', metrics=['accuracy'])
history = model.fit([inputs_train, queries_train], answers_train, batch_size=32, epochs=4,
                    validation_data=([inputs_train[:64], queries_train[:64]], answers_train[:64]),
                    verbose=0)
assert history.history['loss'][-1] < history.history['loss'][0]
assert model.layers[0].output_shape in ((None, story_maxlen), [(None, story_maxlen)])
