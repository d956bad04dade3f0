'''A variational autoencoder with the reparameterization trick and add_loss on symbols.'''
from keras.layers import Lambda, Input, Dense
from keras.models import Model
from keras.losses import mse, binary_crossentropy
from keras.utils import to_categorical
from keras import backend as K
import numpy as np


def sampling(args):
    z_mean, z_log_var = args
    batch = K.shape(z_mean)[0]
    dim = K.int_shape(z_mean)[1]
    # by default, random_normal has mean=0 and std=1.0
    epsilon = K.random_normal(shape=(batch, dim))
    return z_mean + K.exp(0.5 * z_log_var) * epsilon


rng = np.random.RandomState(0)
labels = rng.randint(0, 3, 128)
x_train = np.clip(to_categorical(labels, 3).repeat(4, 1) + 0.1 * rng.randn(128, 12), 0, 1)
original_dim, intermediate_dim, latent_dim = 12, 16, 2

# VAE model = encoder + decoder
inputs = Input(shape=(original_dim,), name='encoder_input')
x = Dense(intermediate_dim, activation='relu')(inputs)
z_mean = Dense(latent_dim, name='z_mean')(x)
z_log_var = Dense(latent_dim, name='z_log_var')(x)
z = Lambda(sampling, output_shape=(latent_dim,), name='z')([z_mean, z_log_var])
encoder = Model(inputs, [z_mean, z_log_var, z], name='encoder')

latent_inputs = Input(shape=(latent_dim,), name='z_sampling')
x = Dense(intermediate_dim, activation='relu')(latent_inputs)
outputs = Dense(original_dim, activation='sigmoid')(x)
decoder = Model(latent_inputs, outputs, name='decoder')

outputs = decoder(encoder(inputs)[2])
vae = Model(inputs, outputs, name='vae_mlp')

reconstruction_loss = binary_crossentropy(inputs, outputs)
reconstruction_loss *= original_dim
kl_loss = 1 + z_log_var - K.square(z_mean) - K.exp(z_log_var)
kl_loss = K.sum(kl_loss, axis=-1)
kl_loss *= -0.5
vae_loss = K.mean(reconstruction_loss + kl_loss)
vae.add_loss(vae_loss)
vae.compile(optimizer='adam')
vae.optimizer.lr = 0.02
history = vae.fit(x_train, epochs=8, batch_size=32, validation_data=(x_train[:32], None), verbose=0)
loss = history.history['loss']
assert loss[-1] < 0.95 * loss[0], loss
assert len(history.history['val_loss']) == 8
first, second = (encoder.predict(x_train[:4], verbose=0) for _ in range(2))
assert (first[0] == second[0]).all() and (first[2] != second[2]).any()
assert decoder.predict(np.zeros((1, 2)), verbose=0).shape == (1, 12)
