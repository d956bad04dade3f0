"""A program of 2019: tf.keras, with functions of tf in Lambdas and losses."""
import numpy as np
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.layers import LSTM, Lambda
from tensorflow.keras.models import Model
import tensorflow.keras.backend as K
import tensorflow.compat.v1 as tf1

print(tf.__version__)
tf.random.set_seed(0)
m, s = np.array([0.5, 0.4, 0.3], 'float32'), np.array([1.0, 2.0, 3.0], 'float32')


def standardize(x):
    x0 = (x[:, :, :, 0] - m[0]) / (2 * s[0]) + 0.5
    x1 = (x[:, :, :, 1] - m[1]) / (2 * s[1]) + 0.5
    x2 = (x[:, :, :, 2] - m[2]) / (2 * s[2]) + 0.5
    return tf.stack([x0, x1, x2], 3)


class MyModel(tf.keras.Model):
    def __init__(self, num_classes=2):
        super(MyModel, self).__init__(name='my_model')
        self.block_1 = layers.Dense(8, activation='relu')
        self.block_2 = layers.Dense(num_classes)

    def call(self, inputs, training=False):
        x = self.block_1(inputs)
        return tf.nn.softmax(self.block_2(x))


def my_loss(y_true, y_pred):
    y_true = tf.cast(y_true, tf.float32)
    return tf.reduce_mean(tf.square(y_pred - y_true), axis=-1)


images = np.random.RandomState(0).rand(16, 4, 4, 3).astype('float32')
inputs = keras.Input(shape=(4, 4, 3))
x = Lambda(standardize)(inputs)
x = Lambda(lambda t: tf.concat([t, tf.reduce_mean(t, axis=-1, keepdims=True)], axis=-1))(x)
x = Lambda(lambda t: tf.reshape(t, (-1, 16, 4)))(x)
x = LSTM(4)(x)
x = tf.expand_dims(x, 1)          # on symbols, as TensorFlow's own layers
x = tf.squeeze(tf.matmul(x, tf.ones((4, 4))), axis=1)
model = Model(inputs, layers.Dense(1)(x))
model.compile(optimizer=tf.keras.optimizers.Adam(learning_rate=0.01), loss=my_loss,
              metrics=[tf.keras.metrics.MeanAbsoluteError()])
model.fit(images, np.ones((16, 1)), epochs=2, verbose=0)
wanted = np.stack([(images[..., i] - m[i]) / (2 * s[i]) + 0.5 for i in range(3)], 3)
found = Model(inputs, model.layers[1].output).predict(images)
assert np.allclose(found, wanted, atol=1e-5)

own = MyModel()
own.compile(tf.keras.optimizers.SGD(0.1), 'sparse_categorical_crossentropy', metrics=['accuracy'])
own.fit(images.reshape(16, -1), np.arange(16) % 2, epochs=1, verbose=0)
assert own.predict(images.reshape(16, -1)).shape == (16, 2)
assert tf.shape(images)[0] == 16 and tf.float32 == images.dtype

try:
    tf.GradientTape()
except AttributeError as error:
    message = str(error)
assert 'value_and_grad' in message, message
assert isinstance(model, keras.models.Model) and K.floatx() == 'float32'
