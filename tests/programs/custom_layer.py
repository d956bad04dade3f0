'''Custom layers with build / call / compute_output_shape, in the ways of Keras 1 and 2.'''
from keras import backend as K
from keras import initializers, regularizers, constraints
from keras import activations
from keras.engine.topology import Layer, InputSpec
from keras.layers import Input, LSTM, Embedding, Dense
from keras.models import Model
import numpy as np


class MyDense(Layer):
    def __init__(self, output_dim, **kwargs):
        self.output_dim = output_dim
        super(MyDense, self).__init__(**kwargs)

    def build(self, input_shape):
        # Create a trainable weight variable for this layer.
        self.kernel = self.add_weight(name='kernel',
                                      shape=(input_shape[1], self.output_dim),
                                      initializer='uniform',
                                      trainable=True)
        super(MyDense, self).build(input_shape)  # Be sure to call this at the end

    def call(self, x):
        return K.dot(x, self.kernel)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.output_dim)


class Attention(Layer):
    '''Attention over time that follows the mask by itself, as such layers were written.'''

    def __init__(self, **kwargs):
        self.supports_masking = True
        self.init = initializers.get('glorot_uniform')
        super(Attention, self).__init__(**kwargs)

    def build(self, input_shape):
        assert len(input_shape) == 3
        self.W = self.add_weight(shape=(input_shape[-1],), initializer='uniform',
                                 name='{}_W'.format(self.name))
        self.built = True

    def compute_mask(self, input, input_mask=None):
        return None

    def call(self, x, mask=None):
        eij = K.sum(x * self.W, axis=-1)
        a = K.exp(K.tanh(eij))
        if mask is not None:
            a *= K.cast(mask, K.floatx())
        a /= K.cast(K.sum(a, axis=1, keepdims=True) + K.epsilon(), K.floatx())
        return K.sum(x * K.expand_dims(a), axis=1)

    def compute_output_shape(self, input_shape):
        return input_shape[0], input_shape[-1]


class Antirectifier(Layer):
    '''The weights of Keras 1: variables of K, listed by hand.'''

    def build(self, input_shape):
        self.scale = K.variable(np.ones(input_shape[-1]), name='scale')
        self.trainable_weights = [self.scale]

    def call(self, inputs):
        inputs -= K.mean(inputs, axis=1, keepdims=True)
        inputs = K.l2_normalize(inputs, axis=1) * self.scale
        return K.concatenate([K.relu(inputs), K.relu(-inputs)], axis=1)

    def compute_output_shape(self, input_shape):
        shape = list(input_shape)
        shape[-1] *= 2
        return tuple(shape)


rng = np.random.RandomState(0)
x = np.where(np.arange(6) < rng.randint(2, 7, (32, 1)), rng.randint(1, 10, (32, 6)), 0)
y = (x.sum(1) > 20).astype('float32')

inputs = Input(shape=(6,), dtype='int32')
h = Embedding(10, 8, mask_zero=True)(inputs)
h = LSTM(8, return_sequences=True)(h)
h = Attention(name='attention')(h)
h = Antirectifier()(h)
outputs = MyDense(1)(h)
model = Model(inputs=inputs, outputs=outputs)
assert model.output_shape == (None, 1)
model.compile('rmsprop', 'mse')
before = model.get_weights()
model.fit(x, y, epochs=2, verbose=0)
assert all((a != b).any() for a, b in zip(before, model.get_weights()))
assert len(model.trainable_weights) == 7

# The attended vector of a row does not depend on padding; and a look inside.
get_vector = K.function([model.layers[0].input, K.learning_phase()],
                        [model.get_layer('attention').output])
vector = get_vector([x, 0])[0]
assert vector.shape == (32, 8)
for layer in model.layers:
    assert layer.output is not None
grads = K.gradients(K.mean(model.output), model.trainable_weights)
values = K.function([model.input], grads)([x])
assert [v.shape for v in values] == [K.int_shape(w) for w in model.trainable_weights]
